//! The command line, the keys, and the thread that reads snapshots.

use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use uring_arena_top::{Client, ReadError, Snapshot};

use crate::demo::Demo;
use crate::screen::{Page, Screen};

const HELP: &str = "\
Shows the memory of a program that uses uring-arena: states of slots, who holds them, who waits.
The program serves snapshots on a Unix socket: `uring_arena_top::serve(path, ...)`.

Usage: uring-arena-top [OPTIONS] [SOCKET]
  SOCKET      the socket of the program
  --demo      shows a demo server under load; it serves SOCKET, if one is given
  --json      prints one snapshot as a line of JSON, and ends
  --help      prints this

Keys: 1-4 pages, tab arenas, up and down lines, q end. NO_COLOR=1 shows letters only.";

/// The time between two looks at the snapshots while no key is pressed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time until a lost connection is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Arguments {
    socket: Option<PathBuf>,
    is_demo: bool,
    is_json: bool,
}

pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uring-arena-top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = parse()? else {
        println!("{HELP}");
        return Ok(());
    };
    let demo = arguments.is_demo.then(|| Demo::start(arguments.socket.clone())).transpose()?;
    let socket = match (&demo, arguments.socket) {
        (Some(demo), _) => demo.path().to_owned(),
        (None, Some(socket)) => socket,
        (None, None) => return Err("name a SOCKET, or give --demo; --help tells more".into()),
    };
    if arguments.is_json {
        println!("{}", Client::connect(&socket)?.snapshot()?.to_json());
        return Ok(());
    }
    // A wrong path is told before the screen is taken.
    let client = Client::connect(&socket)?;
    if !std::io::stdout().is_terminal() {
        return Err("the output is no terminal: give --json for one snapshot".into());
    }
    show(&read_all(client, socket))
}

fn parse() -> Result<Option<Arguments>, Box<dyn Error>> {
    use lexopt::prelude::*;

    let mut arguments = Arguments { socket: None, is_demo: false, is_json: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("demo") => arguments.is_demo = true,
            Long("json") => arguments.is_json = true,
            Value(path) if arguments.socket.is_none() => arguments.socket = Some(path.into()),
            other => return Err(format!("{}; --help tells more", other.unexpected()).into()),
        }
    }
    Ok(Some(arguments))
}

/// Reads snapshots on a thread, and connects again when the program went away.
fn read_all(first: Client, socket: PathBuf) -> Receiver<Result<Snapshot, ReadError>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut client = Ok(first);
        loop {
            let snapshot = match &mut client {
                Ok(client) => client.snapshot(),
                Err(_) => Client::connect(&socket).and_then(|mut connected| {
                    let snapshot = connected.snapshot();
                    client = Ok(connected);
                    snapshot
                }),
            };
            let is_lost = snapshot.is_err();
            if sender.send(snapshot).is_err() {
                return;
            }
            if is_lost {
                client = Err(());
                thread::sleep(RETRY);
            }
        }
    });
    receiver
}

/// Shows the snapshots until a key ends it.
fn show(snapshots: &Receiver<Result<Snapshot, ReadError>>) -> Result<(), Box<dyn Error>> {
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(has_colors);
    let mut terminal = ratatui::try_init()?;
    let shown = (|| {
        loop {
            for snapshot in snapshots.try_iter() {
                match snapshot {
                    Ok(snapshot) => screen.add(snapshot),
                    Err(error) => screen.status = format!("lost, trying again: {error}"),
                }
            }
            terminal.draw(|frame| screen.draw(frame))?;
            if event::poll(LOOK_EVERY)? && !take_key(&mut screen, &event::read()?) {
                return Ok(());
            }
        }
    })();
    ratatui::restore();
    shown
}

/// Acts on a key. Returns `false` if it ends the program.
fn take_key(screen: &mut Screen, event: &Event) -> bool {
    let Event::Key(key) = event else { return true };
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char(number @ '1'..='4') => {
            screen.choose(Page::ALL[number as usize - '1' as usize]);
        }
        KeyCode::Tab | KeyCode::Right => screen.next_arena(false),
        KeyCode::BackTab | KeyCode::Left => screen.next_arena(true),
        KeyCode::Down => screen.scroll(1),
        KeyCode::Up => screen.scroll(-1),
        KeyCode::PageDown => screen.scroll(10),
        KeyCode::PageUp => screen.scroll(-10),
        _ => {}
    }
    true
}
