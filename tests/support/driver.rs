//! Helpers of the tests with a driver.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use uring_arena::{Driver, DriverBuilder, DriverError, Event, FixedArena};

/// A time longer than a test takes: a hang becomes a failure that tells where it waited.
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn arena(slots: usize, slot_bytes: usize) -> FixedArena {
    let nz = |n| NonZeroUsize::new(n).expect("a size");
    FixedArena::with_slot_capacity(nz(slots), nz(slot_bytes)).build().expect("an arena")
}

/// Builds a driver.
///
/// Returns `None`, and prints the reason, where io_uring is not available.
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

/// Opens a TCP connection over loopback, and returns both ends.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours =
        TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (theirs, _) = listener.accept().expect("the other end");
    (ours, theirs)
}

/// Takes events until `done` returns `true`; fails after [`TIMEOUT`].
pub fn run(driver: &mut Driver, mut done: impl FnMut(Event) -> bool) {
    let until = Instant::now() + TIMEOUT;
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

/// Ends the driver; no operation may be left in flight.
pub fn finish(mut driver: Driver) {
    let drained = driver.drain(TIMEOUT).expect("the kernel goes on");
    assert_eq!((drained.in_flight, drained.quarantined), (0, 0), "{drained:?}");
}

/// Makes bytes that differ by position and by stream.
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

/// Raises the limit of open files to `wanted`, if that is allowed.
///
/// Returns the limit as it is then.
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
