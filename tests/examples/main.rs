//! The examples as programs: started as a user starts them, fed well and badly, and watched.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod command_lines;
mod doctor;
mod ingest;
mod prometheus;
mod proxy;
mod recv_loop;
mod servers;

/// Returns whether io_uring is available. Says so if it is not.
fn is_available() -> bool {
    let probe = uring_arena::Probe::shared();
    if let Err(error) = &probe {
        eprintln!("SKIPPED: {error}");
    }
    probe.is_ok()
}
