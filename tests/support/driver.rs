//! Helpers of the tests with a driver.

use std::time::Instant;

use uring_arena::{Driver, DriverBuilder, DriverError, Event, OperationId};

use super::TIMEOUT;

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

/// Waits for the `Done` event of an operation. Other events must be of writes.
pub fn done(driver: &mut Driver, operation: OperationId) -> std::io::Result<()> {
    let mut ended = None;
    run(driver, |event| match event {
        Event::Done { id, result, .. } if id == operation => {
            ended = Some(result);
            true
        }
        Event::Wrote { .. } | Event::WroteVectored { .. } => false,
        other => panic!("{other:?}"),
    });
    ended.unwrap()
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
