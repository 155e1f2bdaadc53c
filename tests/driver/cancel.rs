//! Many operations are given up at a cost that is proportional to their number.
//!
//! The cost is counted: system calls, entries that were pushed, and the processor time of this
//! thread, which other programs hardly change.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::driver::{build, finish, run};
use crate::support::{arena, assert_all_free, tcp_pair};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use uring_arena::{Driver, Event, OperationId};

/// The number that the issue tells of, and one that a cost of the square would betray.
const MANY: usize = 16_000;
const MANY_MORE: usize = 16 * MANY;

/// Returns the processor time that `work` takes on this thread.
fn processor_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let begin = now();
    work();
    now() - begin
}

/// Fails if the time for sixteen times as many grows with the square: 256 times. Between the
/// linear 16 and that there is room for caches that get cold.
fn assert_linear(what: &str, mut time_of: impl FnMut(usize) -> Duration) {
    let few = time_of(MANY).max(Duration::from_micros(100));
    let many = time_of(MANY_MORE);
    assert!(many < few * 100, "{what}: {MANY} took {few:?}, {MANY_MORE} took {many:?}");
}

/// Makes a driver with a send that is stuck, and `count` behind it.
fn with_queue(count: usize) -> Option<(Driver, Vec<OperationId>, TcpStream)> {
    let mut driver = build(Driver::builder().operations(count + 10))?;
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    driver.send(socket, Bytes::from(vec![1; 64 << 20])).unwrap();
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    let byte = || Bytes::from_static(b"x");
    let sends = (0..count).map(|_| driver.send(socket, byte()).unwrap()).collect();
    Some((driver, sends, theirs))
}

fn take_cancelled(driver: &mut Driver) -> usize {
    let mut events = 0;
    while let Some(event) = driver.next() {
        let Event::Sent { result, sent: 0, .. } = event else { panic!("{event:?}") };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        events += 1;
    }
    events
}

#[test]
fn queued_sends_are_cancelled_in_any_order_without_the_kernel() {
    if with_queue(0).is_none() {
        return;
    }
    for (is_newest_first, takes_each) in [(false, false), (true, false), (false, true)] {
        assert_linear("cancelled sends", |count| {
            let (mut driver, mut sends, _theirs) = with_queue(count).unwrap();
            let before = driver.metrics();
            if is_newest_first {
                sends.reverse();
            }
            let mut events = 0;
            let time = processor_time(|| {
                for send in sends {
                    driver.cancel_operation(send).unwrap();
                    if takes_each {
                        events += take_cancelled(&mut driver);
                    }
                }
                events += take_cancelled(&mut driver);
            });
            let after = driver.metrics();
            assert_eq!(events, count);
            assert_eq!((after.enters, after.transfers), (before.enters, before.transfers));
            finish(driver);
            time
        });
    }
}

#[test]
fn sends_behind_a_tear_fail_and_a_queue_is_drained_without_the_kernel() {
    let Some((mut driver, sends, theirs)) = with_queue(MANY) else { return };
    let before = driver.metrics().transfers;
    let stuck_behind = sends.len();
    // The stuck send fails, and all behind it.
    drop(theirs);
    let mut events = 0;
    run(&mut driver, |event| {
        events += usize::from(matches!(event, Event::Sent { result: Err(_), .. }));
        events == stuck_behind + 1
    });
    assert!(driver.metrics().transfers - before <= 2, "what fails behind it is not pushed");
    finish(driver);
    assert_linear("a queue that is drained", |count| {
        let (driver, _, _theirs) = with_queue(count).unwrap();
        processor_time(|| finish(driver))
    });
}

/// The kernel has these: each takes one entry, and many entries go in by one call.
#[test]
fn reads_and_accepts_are_cancelled_by_an_entry_each() {
    const READS: usize = 4000;
    let Some(mut driver) = build(Driver::builder()) else { return };
    let arena = arena(READS, 64);
    let (ours, _theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let read = |_| driver.read(socket, arena.allocate().unwrap(), 0).unwrap();
    let reads: Vec<_> = (0..READS).map(read).collect();
    driver.wait_timeout(Duration::from_millis(1)).unwrap();
    let before = driver.metrics().enters;
    reads.into_iter().for_each(|read| driver.cancel_operation(read).unwrap());
    let mut events = 0;
    run(&mut driver, |event| {
        let Event::Read { result, .. } = event else { panic!("{event:?}") };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        events += 1;
        events == READS
    });
    // 256 entries go in by one call; the kernel hands about 20 completions out by one.
    let enters = driver.metrics().enters - before;
    assert!(enters < READS as u64 / 8, "{enters} system calls");
    finish(driver);
    assert_all_free(&arena);

    let Some(mut driver) = build(Driver::builder()) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accept = |_| driver.accept(listener.try_clone().unwrap()).unwrap();
    let accepts: Vec<_> = (0..100).map(accept).collect();
    driver.wait_timeout(Duration::from_millis(1)).unwrap();
    let before = driver.metrics().enters;
    accepts.into_iter().for_each(|accept| driver.close(accept).unwrap());
    let mut closed = 0;
    run(&mut driver, |event| {
        closed += usize::from(matches!(event, Event::Closed { error: None, .. }));
        closed == 100
    });
    let enters = driver.metrics().enters - before;
    assert!(enters < 20, "{enters} system calls");
    finish(driver);
}
