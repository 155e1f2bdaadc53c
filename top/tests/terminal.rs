//! The program in a terminal of 80 columns and 24 lines, and without one.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use uring_arena::{FixedArena, TrackHolders};
use uring_arena_top::{Snapshot, serve};

const PROGRAM: &str = env!("CARGO_BIN_EXE_uring-arena-top");

/// The time in which everything must be seen, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(60);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("uring-arena-top-{name}-{}", std::process::id()))
}

/// The program in a terminal that remembers its screen.
struct Terminal {
    child: Child,
    keys: File,
    bytes: Receiver<Vec<u8>>,
    parser: vt100::Parser,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Terminal {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&main, size).unwrap();
        let name = PathBuf::from(ptsname(&main, Vec::new()).unwrap().into_string().unwrap());
        let not_ours = rustix::fs::OFlags::NOCTTY.bits() as i32;
        let mut options = File::options();
        let side = options.read(true).write(true).custom_flags(not_ours).open(name).unwrap();
        let stdio = || Stdio::from(OwnedFd::from(side.try_clone().unwrap()));
        // A session of its own: the terminal that the tests run in is none of its business.
        let child = Command::new("setsid")
            .arg(PROGRAM)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keys = File::from(main);
        let mut output = keys.try_clone().unwrap();
        let (sender, bytes) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (rows, columns) = (24.try_into().unwrap(), 80.try_into().unwrap());
        Terminal { child, keys, bytes, parser: vt100::Parser::new(rows, columns, 0) }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits until the screen has every one of some texts. Returns its text.
    #[track_caller]
    fn shows(&mut self, texts: &[&str]) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.parser.screen().contents();
            if texts.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            assert!(begin.elapsed() < TIMEOUT, "no {texts:?} in\n{screen}");
            if let Ok(bytes) = self.bytes.recv_timeout(Duration::from_millis(100)) {
                self.parser.process(&bytes);
            }
        }
    }

    #[track_caller]
    fn ends(mut self) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < TIMEOUT, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_fills_every_screen() {
    let mut terminal = Terminal::start(&["--demo"]);
    let keys = ["q quit", "1-4 page"];
    let texts = ["arena frames (1 of 3)", "Who holds most:", "512 x 4096 B", "waiters", "100 %"];
    let screen = terminal.shows(&[&texts[..], &keys].concat());
    assert!(screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 80));
    // The letters of the states have colors.
    terminal.shows(&["f", "r"]);
    let has_color = (0..24).any(|row| {
        (0..80).any(|column| {
            let cell = terminal.parser.screen().cell(row, column).unwrap();
            cell.fgcolor() != vt100::Color::Default
        })
    });
    assert!(has_color);
    terminal.press(b"2");
    terminal.shows(&["each letter is 1 slot", "lowest index first"]);
    terminal.press(b"\t");
    terminal.shows(&["arena cache (2 of 3)", "smallest blocks", "4096 KiB:", "used"]);
    terminal.press(b"3");
    terminal.shows(&["oldest claims", "\"cache\"", "recorded"]);
    terminal.press(b"\x1b[C");
    terminal.shows(&["arena jobs (3 of 3)", "\"job\""]);
    terminal.press(b"4");
    let sockets = uring_arena::Driver::builder().build().is_ok();
    terminal.shows(&[if sockets { "connection driver" } else { "no driver" }]);
    terminal.press(b"q");
    terminal.ends();
}

#[test]
fn a_program_that_ends_and_comes_back_is_seen_again() {
    let path = path("again");
    let arena = FixedArena::with_sizes(8, 64).track_holders(TrackHolders::All).build().unwrap();
    let serve_again = || {
        let served = arena.clone();
        serve(&path, move || Snapshot::new().arena("frames", &served)).unwrap()
    };
    let server = serve_again();
    let held = arena.allocate().unwrap();
    let mut terminal = Terminal::start(&[path.to_str().unwrap()]);
    terminal.shows(&["h 1 held", "terminal.rs:", "a map or a queue"]);
    drop(server);
    terminal.shows(&["lost, trying again"]);
    drop(held);
    let server = serve_again();
    let screen = terminal.shows(&["h 0 held", "8 free"]);
    assert!(!screen.contains("lost"), "{screen}");
    terminal.press(b"\x03");
    terminal.ends();
    drop(server);
}

fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < TIMEOUT, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn without_a_terminal_it_prints_json_or_says_what_is_wrong() {
    let output = run(&["--demo", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let snapshot = Snapshot::from_json(text.trim_end()).unwrap();
    let names: Vec<&str> = snapshot.arenas.iter().map(|arena| arena.name.as_str()).collect();
    assert_eq!((names, text.lines().count()), (vec!["frames", "cache", "jobs"], 1));

    let output = run(&["--help"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Usage:"));
    for (arguments, text) in [
        (&["/no/such/socket"][..], "no program serves \"/no/such/socket\""),
        (&["--json", "/no/such/socket"], "uring_arena_top::serve"),
        (&[], "--demo"),
        (&["--other"], "--help"),
        (&["--demo"], "no terminal"),
    ] {
        let output = run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(text), "{arguments:?}: {errors}");
    }
}
