//! Helpers of the tests with a driver.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use uring_arena::{Driver, DriverBuilder, DriverError, Event, FixedArena};

/// Longer than any test takes that works: a hang becomes a failure that says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn arena(slots: usize, slot_bytes: usize) -> FixedArena {
    let nz = |n| NonZeroUsize::new(n).expect("a size");
    FixedArena::with_slot_capacity(nz(slots), nz(slot_bytes)).build().expect("an arena")
}

/// A driver; `None`, and a line that says why, where io_uring is not to be had.
pub fn driver() -> Option<Driver> {
    build(Driver::builder())
}

pub fn build(builder: DriverBuilder) -> Option<Driver> {
    match builder.build() {
        Ok(driver) => Some(driver),
        Err(error @ (DriverError::Forbidden { .. } | DriverError::Unsupported { .. })) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Two ends of a TCP connection over loopback.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours =
        TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (theirs, _) = listener.accept().expect("the other end");
    (ours, theirs)
}

/// Takes events until `done` says so; fails after [`PATIENCE`].
pub fn run(driver: &mut Driver, mut done: impl FnMut(Event) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        while let Some(event) = driver.next() {
            if done(event) {
                return;
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nothing happened any more: {driver:?} {:?}", driver.metrics());
        driver.wait_timeout(left).expect("the kernel goes on");
    }
}

/// Ends the driver; nothing may be left in flight.
pub fn finish(mut driver: Driver) {
    let drained = driver.drain(PATIENCE).expect("the kernel goes on");
    assert_eq!((drained.in_flight, drained.quarantined), (0, 0), "{drained:?}");
}

/// Bytes that differ by position and by stream.
pub fn pattern(stream: usize, len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(stream as u64 + 1) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Raises the limit of open files to `wanted` if it may; returns what it is now.
pub fn raise_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft < wanted {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(wanted.min(hard)), maximum: limit.maximum },
        );
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(wanted)
}

pub fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).expect("readable");
    all
}
