//! The ingest: no file is made or emptied in vain, and what is left behind is told.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use uring_arena::{DirectFile, Probe};

use crate::support::examples::{Program, command, refuse, succeed};
use crate::support::{TIMEOUT, TestFile, pattern};

/// Returns whether the ingest can run at all, and with which further options.
fn options() -> Option<&'static [&'static str]> {
    if let Err(error) = Probe::shared() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    let file = TestFile::new("ingest-probe", b"");
    Some(if DirectFile::open(&file).is_ok() { &[] } else { &["--buffered"] })
}

fn path_of(file: &TestFile) -> String {
    file.as_ref().to_str().unwrap().into()
}

/// Starts an ingest that listens. Returns it with its address.
fn listening(file: &TestFile, more: &[&str], limits: &str) -> Option<(Program, String)> {
    let path = path_of(file);
    let mut arguments = vec!["--listen", "127.0.0.1:0", &path];
    arguments.extend(more);
    arguments.extend(options()?);
    let mut program = Program::spawn("ingest", command("ingest", limits, &arguments));
    let address = program.line("listening on ");
    Some((program, address))
}

fn connect(to: &str) -> TcpStream {
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn until_len(path: &Path, len: u64) {
    let until = std::time::Instant::now() + TIMEOUT;
    while fs::metadata(path).map_or(0, |found| found.len()) < len {
        assert!(std::time::Instant::now() < until, "{} is too short", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stream_is_written_whole() {
    for len in [0, 1, 4095, 4096, 3_000_001] {
        let file = TestFile::path("ingest");
        let Some((program, address)) = listening(&file, &["--slot-bytes", "64K"], "") else {
            return;
        };
        let sent = pattern(len, len);
        connect(&address).write_all(&sent).unwrap();
        let ended = program.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(fs::read(&file).unwrap() == sent, "{len}");
        let few = len < 1_000_000;
        assert_eq!(ended.output.matches("not measured").count(), if few { 2 } else { 0 });
    }
}

#[test]
fn an_existing_file_is_not_touched_without_force() {
    let Some(more) = options() else { return };
    let file = TestFile::new("ingest", b"precious");
    let path = path_of(&file);
    for listen in [&["--listen", "127.0.0.1:0"][..], &["--bytes", "5"]] {
        let error = refuse("ingest", &[&[path.as_str()], listen, more].concat());
        assert!(error.contains(&path) && error.contains("--force"), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    succeed("ingest", &[&[path.as_str(), "--force", "--bytes", "5"], more].concat());
    assert_eq!(fs::read(&file).unwrap().len(), 5);
    // What is no file cannot be replaced by one.
    for path in ["/dev/full", "/dev/null", "/tmp"] {
        refuse("ingest", &[&[path], more].concat());
        let error = refuse("ingest", &[&[path, "--force"], more].concat());
        assert!(error.contains("not a regular file"), "{error}");
    }
}

#[test]
fn a_file_is_neither_made_nor_emptied_before_a_sender_has_come() {
    let Some(more) = options() else { return };
    // The port is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (made, kept) = (TestFile::path("ingest"), TestFile::new("ingest", b"precious"));
    let (made_path, kept_path) = (path_of(&made), path_of(&kept));
    for file in [&[made_path.as_str()][..], &[kept_path.as_str(), "--force"]] {
        let error = refuse("ingest", &[file, &["--listen", &address], more].concat());
        assert!(error.contains(&address), "{error}");
    }
    assert!(!made.as_ref().exists());
    // Nobody comes.
    for (file, force) in [(&made, &[][..]), (&kept, &["--force"])] {
        let Some((program, _)) = listening(file, force, "") else { return };
        program.interrupt();
        assert_eq!(program.wait().code, None);
    }
    assert!(!made.as_ref().exists());
    assert_eq!(fs::read(&kept).unwrap(), b"precious");
}

#[test]
fn a_second_sender_is_refused_aloud() {
    let file = TestFile::path("ingest");
    let Some((mut program, address)) = listening(&file, &[], "") else { return };
    let mut first = connect(&address);
    first.write_all(b"the first ").unwrap();
    until_len_is_known(&file);
    let mut second = connect(&address);
    let name = second.local_addr().unwrap().to_string();
    // The write may still succeed; the reset comes. The kernel tells it once.
    let written = second.write_all(b"an intruder's");
    let error = written.and_then(|()| second.read_exact(&mut [0])).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    let line = program.error_line("refused a second sender, ");
    assert!(line.starts_with(&name), "{line}");
    first.write_all(b"goes on").unwrap();
    drop(first);
    assert_eq!(program.wait().code, Some(0));
    assert_eq!(fs::read(&file).unwrap(), b"the first goes on");
}

#[test]
fn a_second_sender_is_refused_aloud_even_if_the_first_is_done_at_once() {
    let file = TestFile::path("ingest");
    let Some((mut program, address)) = listening(&file, &[], "") else { return };
    program.stop();
    let first = connect(&address);
    let mut second = connect(&address);
    let name = second.local_addr().unwrap().to_string();
    (&first).write_all(b"all of it").unwrap();
    drop(first);
    program.go_on();
    let error = second.read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    let line = program.error_line("refused a second sender, ");
    assert!(line.starts_with(&name), "{line}");
    assert_eq!(program.wait().code, Some(0));
    assert_eq!(fs::read(&file).unwrap(), b"all of it");
}

/// Waits until the file is there, which is when the first sender was taken.
fn until_len_is_known(file: &TestFile) {
    let until = std::time::Instant::now() + TIMEOUT;
    while !file.as_ref().exists() {
        assert!(std::time::Instant::now() < until, "no file for the first sender");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_sender_that_resets_leaves_what_it_sent_and_the_error_says_so() {
    let file = TestFile::path("ingest");
    let Some((program, address)) = listening(&file, &["--slot-bytes", "4K"], "") else { return };
    let mut sender = connect(&address);
    let sent = pattern(3, 100_000);
    sender.write_all(&sent).unwrap();
    until_len(file.as_ref(), 96 << 10);
    set_socket_linger(&sender, Some(Duration::ZERO)).unwrap();
    drop(sender);
    let ended = program.wait();
    assert_eq!(ended.code, Some(1));
    let kept = fs::read(&file).unwrap();
    assert!(sent.starts_with(&kept) && kept.len() >= 96 << 10, "{} bytes", kept.len());
    let (path, bytes) = (path_of(&file), human(kept.len()));
    assert!(
        ended.errors.contains(&format!("{path} is left behind, with the first {bytes}")),
        "{ended:?}"
    );
}

/// Writes a number with commas, as the examples do.
fn human(number: usize) -> String {
    let digits: Vec<char> = number.to_string().chars().rev().collect();
    let groups: Vec<String> = digits.chunks(3).map(|group| group.iter().collect()).collect();
    groups.join(",").chars().rev().collect::<String>() + " bytes"
}

#[test]
fn a_disk_that_takes_no_more_leaves_what_it_took_and_the_error_says_so() {
    // A limit on the size of files stands for the disk. Blocks of the limit have 512 bytes.
    let limits = "trap '' XFSZ; ulimit -f 200";
    let file = TestFile::path("ingest");
    let Some((program, address)) = listening(&file, &["--slot-bytes", "4K"], limits) else {
        return;
    };
    let mut sender = connect(&address);
    let sent = pattern(4, 1 << 20);
    // The ingest may end before all is sent.
    let _ = sender.write_all(&sent);
    let ended = program.wait();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let kept = fs::read(&file).unwrap();
    assert!(!kept.is_empty() && sent.starts_with(&kept), "{} bytes", kept.len());
    let (path, bytes) = (path_of(&file), human(kept.len()));
    assert!(
        ended.errors.contains(&format!("{path} is left behind, with the first {bytes}")),
        "{ended:?}"
    );
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_sent() {
    let Some(more) = options() else { return };
    let error = refuse("ingest", &[&["--bytes", "4000T"], more].concat());
    assert!(error.contains("--bytes") && error.contains("nothing is left behind"), "{error}");
    let error = refuse("direct_reader", &[&["--bytes", "4000T"], more].concat());
    assert!(error.contains("--bytes"), "{error}");
}

#[test]
fn a_folder_that_takes_no_file_is_told() {
    let Some(more) = options() else { return };
    for folder in ["/proc", "/no/such/folder"] {
        let path = PathBuf::from(folder).join("file");
        let error = refuse("ingest", &[&[path.to_str().unwrap()], more].concat());
        assert!(error.contains(folder) && error.contains("name a FILE"), "{error}");
    }
}
