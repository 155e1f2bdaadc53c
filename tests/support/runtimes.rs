//! Helpers of the tests with a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A piece of memory whose drop panics.
struct Bomb(Vec<u8>);

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload panics, as this test wants");
    }
}

/// Makes bytes whose last drop panics.
pub fn bomb(bytes: usize) -> Bytes {
    Bytes::from_owner(Bomb(vec![1; bytes]))
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

/// Opens a connection whose near end is full: bytes that are sent on it stay with the kernel until
/// the far end reads.
pub fn full_connection() -> (std::net::TcpStream, std::net::TcpStream) {
    let (near, far) = super::tcp_pair();
    near.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &near, &[0xEE; 1 << 16]).is_ok() {}
    (near, far)
}

/// Reads the far end empty on a thread of its own, until the near end is closed. The thread is not
/// joined, because the close may take a turn of the runtime.
pub fn read_empty(mut far: std::net::TcpStream) {
    std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
}

/// A count of the steps of a test: a watchdog tells a hang from slowness by it.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicUsize>);

impl Progress {
    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
