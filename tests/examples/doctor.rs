//! The doctor: its verdict, its exit code, its JSON, and the code that it recommends.

use std::fs;
use std::process::{Command, Stdio};

use crate::is_available;
use crate::support::TestFile;
use crate::support::examples::{Ended, Program, command, compile, run};
use crate::support::seccomp::fail_calls_on_this_thread;

/// Returns the verdict, which is the first line, and checks that the exit code is that of it.
fn verdict(ended: &Ended) -> &str {
    let verdict = ended.output.lines().next().unwrap().strip_prefix("verdict: ").unwrap();
    let code = match verdict {
        "ready" => 0,
        "limited" => 2,
        "unavailable" => 3,
        other => panic!("{other}"),
    };
    assert_eq!(ended.code, Some(code), "{ended:?}");
    verdict
}

/// Returns the program that is recommended.
fn recommended(ended: &Ended) -> &str {
    ended.output.split_once("\nrecommended\n").unwrap().1
}

#[test]
fn the_verdict_comes_first_and_is_the_exit_code() {
    if !is_available() {
        return;
    }
    let ended = run("doctor", &[]);
    assert_ne!(verdict(&ended), "unavailable", "{ended:?}");
    for row in ["kernel", "O_DIRECT here", "memlock needed", "without io_uring", "registered"] {
        assert!(ended.output.contains(row), "{row}: {ended:?}");
    }
    // The memory of the rings counts too.
    let small = run("doctor", &["--slots", "1", "--slot-bytes", "4K"]);
    assert!(small.output.contains("68 KiB: the arena, and 64 KiB for the rings"), "{small:?}");
}

#[test]
fn without_io_uring_it_says_so_once_and_what_works() {
    let ended = std::thread::spawn(|| {
        fail_calls_on_this_thread(libc::SYS_io_uring_setup, libc::EPERM).ok()?;
        Some(Program::spawn("doctor", command("doctor", "", &[])).wait())
    });
    let Some(ended) = ended.join().unwrap() else { return eprintln!("SKIPPED: no seccomp here") };
    assert_eq!(verdict(&ended), "unavailable");
    assert!(ended.output.contains("connections are watched by epoll"), "{ended:?}");
    // The remedy is in the verdict, and nowhere else.
    let reasons = ended.output.lines().filter(|line| line.contains("seccomp")).count();
    assert_eq!(reasons, 1, "{ended:?}");
    assert!(!recommended(&ended).contains("Driver::"), "{ended:?}");
}

#[test]
fn json_has_the_same_answer() {
    let ended = run("doctor", &["--json", "--slots", "64", "--slot-bytes", "4096"]);
    let read = "import json,sys; report = json.load(sys.stdin); print(report['exit_code'], \
                report['verdict'], report['report']['machine']['kernel'], len(report['recommended']))";
    let mut python = Command::new("python3");
    python.args(["-c", read]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = match python.spawn() {
        Ok(python) => python,
        Err(error) => return eprintln!("SKIPPED: python3: {error}"),
    };
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), ended.output.as_bytes()).unwrap();
    let read = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    let fields: Vec<&str> = read.split_whitespace().collect();
    assert_eq!(fields[0].parse::<i32>().ok(), ended.code, "{ended:?}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(fields[2], kernel.trim());
    assert!(fields[3].parse::<usize>().unwrap() > 100);
}

/// Each program that is recommended compiles with the library alone, without a warning.
#[test]
fn what_it_recommends_compiles() {
    let no_ring = std::thread::spawn(|| {
        fail_calls_on_this_thread(libc::SYS_io_uring_setup, libc::EPERM).ok()?;
        Some(Program::spawn("doctor", command("doctor", "", &[])).wait())
    });
    let mut answers = vec![
        run("doctor", &[]),
        run("doctor", &["--slots", "3", "--slot-bytes", "100"]),
        run("doctor", &["--slots", "70000", "--slot-bytes", "64"]),
    ];
    answers.extend(no_ring.join().unwrap());
    for (number, ended) in answers.iter().enumerate() {
        let program = TestFile::new(&format!("recommended-{number}"), b"");
        fs::write(&program, recommended(ended)).unwrap();
        compile(program.as_ref()).unwrap_or_else(|error| panic!("{ended:?}\n{error}"));
    }
}
