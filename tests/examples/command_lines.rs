//! Every example on a bad day: help, nonsense, zero, too much, Ctrl-C, a full disk.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::is_available;
use crate::support::examples::{Program, command, refuse, run, succeed};

/// The examples that these features build.
const EXAMPLES: &[&str] = &[
    "broker",
    "buddy_sends",
    "custom_runtime",
    "direct_reader",
    "dns_server",
    "doctor",
    "ingest",
    "log_store",
    "prometheus",
    "proxy",
    "recv_loop",
    #[cfg(feature = "async-alloc")]
    "backpressure",
    #[cfg(feature = "compio")]
    "compio_echo",
    #[cfg(feature = "monoio")]
    "monoio_read",
    #[cfg(feature = "tokio")]
    "tokio_http",
    #[cfg(feature = "tokio")]
    "tokio_recv",
    #[cfg(feature = "tokio-uring")]
    "tokio_uring_echo",
];

/// Calls `test` with each example, several at a time: they wait much.
fn each_example(test: impl Fn(&'static str) + Sync) {
    const THREADS: usize = 4;
    thread::scope(|scope| {
        for first in 0..THREADS {
            let test = &test;
            scope.spawn(move || {
                EXAMPLES.iter().skip(first).step_by(THREADS).for_each(|it| test(it))
            });
        }
    });
}

/// Returns the arguments with which an example has little to do.
fn small(example: &str) -> &'static [&'static str] {
    match example {
        "backpressure" => &["100", "16", "2"],
        "custom_runtime" => &["1"],
        "direct_reader" | "ingest" => &["--buffered", "--bytes", "1M"],
        "proxy" | "recv_loop" => &["--bytes", "1M"],
        "broker" => &["--subscribers", "4", "--messages", "4"],
        "dns_server" => &["--queries", "100"],
        "log_store" => &["--buffered", "--records", "50"],
        _ => &[],
    }
}

#[test]
fn each_has_help_and_refuses_what_it_does_not_know() {
    each_example(|example| {
        assert!(succeed(example, &["--help"]).len() > 50, "{example}");
        let error = refuse(example, &["--nonsense"]);
        assert!(error.contains("--nonsense") && error.contains("--help"), "{error}");
        let error = refuse(example, &["1", "2", "3", "4"]);
        assert!(error.contains("--help") || error.contains("No such file"), "{error}");
    });
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (example, arguments, named) in [
        ("proxy", "--to 127.0.0.1:9", "--listen"),
        ("proxy", "--listen 127.0.0.1:0", "--to"),
        ("proxy", "--clients 4", "--listen"),
        ("proxy", "--listen 127.0.0.1:0 --to 127.0.0.1:9 --connections 3", "--connections"),
        ("proxy", "--listen 127.0.0.1:0 --to 127.0.0.1:9 --bytes 3", "--bytes"),
        ("proxy", "--bytes 3 --bytes 4", "twice"),
        ("proxy", "--listen 127.0.0.1:0 --to nonsense", "ADDRESS:PORT"),
        ("proxy", "--listen 127.0.0.1:0 --to 127.0.0.1:0", "port 0"),
        ("proxy", "--listen nonsense --to 127.0.0.1:9", "ADDRESS:PORT"),
        ("recv_loop", "--listen 127.0.0.1:0 --bytes 3", "--bytes"),
        ("recv_loop", "--listen 127.0.0.1:0 --file /proc/self/exe", "--file"),
        ("recv_loop", "--file /dev/full", "--file"),
        ("recv_loop", "--file /no/such/file", "--file"),
        ("ingest", "--listen 127.0.0.1:0 --bytes 3", "--bytes"),
        ("ingest", "--force", "FILE"),
        ("ingest", "--slot-bytes 1000", "4096"),
        ("direct_reader", "--bytes 3 /proc/self/exe", "--bytes"),
        ("direct_reader", "--block 1000", "4096"),
        ("direct_reader", "/dev/full", "regular file"),
        ("direct_reader", "/no/such/file", "/no/such/file"),
        ("direct_reader", "/tmp", "regular file"),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let error = refuse(example, &arguments);
        assert!(error.contains(named), "{example} {arguments:?}: {error}");
    }
}

#[test]
fn numbers_that_are_none_or_too_large_are_refused_with_the_limit() {
    let mut wrong = vec![
        ("proxy", "--slots 0", "at least 1"),
        ("proxy", "--slots 65537", "at most 65536"),
        ("proxy", "--slot-bytes 2G", "at most 1073741824"),
        ("proxy", "--slots 65536 --slot-bytes 1G", "available"),
        ("proxy", "--connections 99999999999", "at most 1024"),
        ("proxy", "--bytes 99999999999999999999", "2^64"),
        ("proxy", "--bytes -1", "--bytes"),
        ("proxy", "--bytes 1.5G", "1.5G"),
        ("proxy", "--bytes 4KIBIB", "4KIBIB"),
        ("proxy", "--bytes", "--bytes"),
        ("proxy", "--clients 0", "at least 1"),
        ("recv_loop", "--connections 0", "at least 1"),
        ("recv_loop", "--connections 1048577", "at most 1048576"),
        ("recv_loop", "--connections 1048576", "descriptors"),
        ("recv_loop", "--slots 65536 --slot-bytes 1G", "available"),
        ("ingest", "--slots 16385", "at most 16384"),
        ("ingest", "--slots 16384 --slot-bytes 1G", "available"),
        ("direct_reader", "--depth 4096 --block 1G", "available"),
        ("direct_reader", "--depth 4097", "at most 4096"),
        ("custom_runtime", "0", "at least 1"),
        ("custom_runtime", "1048577", "at most 1048576"),
        ("doctor", "--slots 99999999999", "at most 2147483648"),
    ];
    if cfg!(feature = "async-alloc") {
        wrong.extend([
            ("backpressure", "0", "at least 1"),
            ("backpressure", "1000 16 10001", "at most 10000000"),
            ("backpressure", "10 1048577", "at most 1048576"),
        ]);
    }
    for (example, arguments, named) in wrong {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let error = refuse(example, &arguments);
        assert!(error.contains(named), "{example} {arguments:?}: {error}");
    }
}

#[test]
fn nothing_to_do_is_no_strange_figure() {
    // Of zero bytes 700,000 seconds per GB were printed.
    if !is_available() {
        return;
    }
    for bytes in ["0", "1"] {
        for (example, more) in [
            ("proxy", &[][..]),
            ("recv_loop", &[]),
            ("ingest", &["--buffered"]),
            ("direct_reader", &["--buffered"]),
        ] {
            let output = succeed(example, &[&["--bytes", bytes], more].concat());
            assert!(!output.contains("per GB") && !output.contains("GB/s"), "{example}: {output}");
            assert!(output.contains("verified "), "{example}: {output}");
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_told() {
    if !is_available() {
        return;
    }
    each_example(|example| {
        let small = small(example);
        for (to, is_told) in [("> /dev/full", true), ("| head -c 0", false)] {
            let mut command = command(example, "", small);
            let program = command.get_args().nth(4).unwrap().to_owned();
            command = std::process::Command::new("sh");
            command.args(["-c", &format!("\"$0\" \"$@\" {to}")]).arg(program).args(small);
            command.stdin(Stdio::null());
            let ended = Program::spawn(example, command).wait();
            assert!(!ended.errors.contains("panicked"), "{example} {to}: {ended:?}");
            assert_eq!(
                ended.errors.contains("standard output"),
                is_told,
                "{example} {to}: {ended:?}"
            );
        }
    });
}

#[test]
fn an_interrupt_leaves_no_file_behind() {
    if !is_available() {
        return;
    }
    each_example(|example| {
        let name = format!("interrupted-{}-{example}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let large: &[&str] = match example {
            "direct_reader" | "ingest" => &["--buffered", "--bytes", "64M"],
            "log_store" => &["--buffered"],
            _ => &[],
        };
        for wait in [0, 2, 10, 40, 160] {
            let mut command = command(example, "", large);
            command.current_dir(&folder).env("TMPDIR", &folder);
            let program = Program::spawn(example, command);
            thread::sleep(Duration::from_millis(wait));
            program.interrupt();
            program.wait();
            let left: Vec<_> =
                fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{example} left {left:?} after {wait} ms");
        }
        fs::remove_dir(&folder).unwrap();
    });
}

#[test]
fn a_folder_for_temporary_files_that_takes_none_is_told() {
    if !is_available() {
        return;
    }
    for example in EXAMPLES.iter().filter(|name| ["monoio_read", "tokio_http"].contains(name)) {
        let mut command = command(example, "", &[]);
        command.env("TMPDIR", "/no/such/folder");
        let ended = Program::spawn(example, command).wait();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.errors.contains("TMPDIR"), "{ended:?}");
    }
    // The doctor reports what does not work, and goes on.
    let mut command = command("doctor", "", &[]);
    command.current_dir("/proc");
    let ended = Program::spawn("doctor", command).wait();
    assert_ne!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("recommended"), "{ended:?}");
    assert_ne!(run("doctor", &["--slots", "1", "--slot-bytes", "1"]).code, Some(1));
}

#[test]
fn few_descriptors_are_enough_or_the_error_says_how_many() {
    if !is_available() {
        return;
    }
    each_example(|example| {
        for limit in [12, 40] {
            let limits = format!("ulimit -n {limit}");
            let small = small(example);
            let ended = Program::spawn(example, command(example, &limits, small)).wait();
            let says = ended.errors.contains("ulimit") && ended.code == Some(1);
            assert!(says || ended.code == Some(0), "{example}, {limit}: {ended:?}");
        }
    });
}
