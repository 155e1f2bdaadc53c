//! Everything at once, at random, for as long as asked.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "async-alloc")]
mod claims;
mod peers;
#[cfg(feature = "tokio")]
mod pool;
mod servers;
mod streams;

/// Returns the time that each soak takes.
fn soak_time() -> std::time::Duration {
    std::time::Duration::from_secs(support::number_from_env("URING_ARENA_SOAK_SECONDS", 2))
}

/// Runs an ignored test in a process of its own, which is killed after a time: it hangs.
fn in_own_process(test: &str, time: std::time::Duration) {
    use std::time::{Duration, Instant};

    let program = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(program)
        .args(["--ignored", "--exact", test, "--nocapture"])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + time;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("{test} hangs, and its watchdog as well");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
}
