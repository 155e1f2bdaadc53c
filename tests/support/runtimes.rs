//! Helpers of the tests with a runtime.

use std::future::Future;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use uring_arena::FixedArena;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes that works: a hang becomes a failure that says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An arena that may be used for `O_DIRECT`, too.
pub fn arena(slots: usize, slot_bytes: usize) -> FixedArena {
    let (slots, bytes) =
        (NonZeroUsize::new(slots).unwrap(), NonZeroUsize::new(slot_bytes).unwrap());
    FixedArena::with_slot_capacity(slots, bytes).alignment(4096).build().unwrap()
}

/// Bytes that tell where they stand.
pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + at / 251) as u8).collect()
}

/// Polls a future that cannot be ready yet, and drops it.
pub fn poll_once<F: Future>(future: F) {
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Compares on another thread, and drops there.
pub fn check_elsewhere(parts: Vec<Bytes>, expected: &[u8]) {
    let expected = expected.to_vec();
    std::thread::spawn(move || assert!(parts.concat() == expected)).join().unwrap();
}

/// A file's path of this process alone; the file goes with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Scratch(directory.join(format!("runtime-{name}-{}", std::process::id())))
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection whose near end takes nothing more until the far end reads: what is sent on it stays
/// with the kernel.
pub fn full_connection() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &near, &[0xEE; 1 << 16]).is_ok() {}
    (near, far)
}

/// Reads the far end empty on a thread of its own, until the near end is closed. Nobody waits for
/// that: it may take a turn of the runtime.
pub fn read_empty(mut far: std::net::TcpStream) {
    std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
}
