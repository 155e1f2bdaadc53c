//! The events of arenas in the log: the table of `docs/production.md`, row by row. Each has its
//! fields and a remedy, and a burst of one kind is told once a second at most.

use std::time::Duration;

use bytes::BufMut;
use tracing::subscriber::with_default;

use crate::support::log::{PanickingLog, assert_told, logged};
use crate::support::{TIMEOUT, assert_all_free, nz};
use uring_arena::FixedArena;

#[test]
fn claims_that_wait_are_told_once_a_second_and_so_is_the_end() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(64)).build().unwrap();
    let (log, most) = logged(|| {
        let held = arena.allocate().unwrap();
        for _ in 0..50 {
            assert!(arena.allocate_timeout(Duration::from_millis(1)).is_err());
        }
        drop(held);
    });
    let fields = ["INFO", "waiters=1", "slots=1", "slot_bytes=64", "refusals=", "larger arena"];
    assert_told(&log, most, "claims wait for memory", &fields);
    let fields = ["INFO", "waits=", "longest_wait_ms=", "slots=1"];
    assert_told(&log, most, "no claim waits", &fields);
    assert_all_free(&arena);
}

#[test]
fn spills_are_told_once_a_second() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(64)).auto_spill().build().unwrap();
    let (log, most) = logged(|| {
        for _ in 0..100 {
            arena.allocate().unwrap().put_slice(&[1; 100]);
        }
    });
    let fields = ["WARN", "slot_bytes=64", "needed_bytes=100", "spills=", "larger slots"];
    assert_told(&log, most, "outgrew its slot", &fields);
    assert_all_free(&arena);
}

#[cfg(feature = "holders")]
#[test]
fn an_alarm_tells_age_and_share_with_the_table() {
    use uring_arena::{HolderAlarm, TrackHolders};

    let builder = FixedArena::with_slot_capacity(nz(4), nz(64)).track_holders(TrackHolders::All);
    let arena = builder.build().unwrap();
    let alarm = HolderAlarm::new().max_share(0.5).every(Duration::from_secs(1));
    let held: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    let (log, most) = logged(|| {
        for _ in 0..50 {
            alarm.check(&arena.holders());
        }
    });
    let fields = ["WARN", "oldest_ms=", "share_percent=75", "events.rs", "a map or a queue"];
    assert_told(&log, most, "memory of an arena is held", &fields);
    drop(held);
    assert_all_free(&arena);
}

#[cfg(feature = "holders")]
#[test]
fn claims_that_outlive_the_last_handle_are_told_with_their_place() {
    use uring_arena::TrackHolders;

    let mut kept = None;
    let (log, _) = logged(|| {
        let builder = FixedArena::with_slot_capacity(nz(4), nz(64));
        let arena = builder.track_holders(TrackHolders::All).build().unwrap();
        kept = Some(arena.allocate().unwrap());
        drop(arena);
    });
    assert_told(&log, 1, "the last handle of an arena is gone", &["INFO", "events.rs"]);
    drop(kept);
}

#[test]
fn a_log_that_panics_costs_no_slot_and_no_waiter() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(64)).build().unwrap();
    with_default(PanickingLog, || {
        for _ in 0..2 {
            let held = arena.allocate().unwrap();
            assert!(arena.allocate_timeout(Duration::from_millis(1)).is_err());
            assert_eq!(arena.metrics().waiters, 0);
            let waiting = arena.clone();
            let thread = std::thread::spawn(move || {
                with_default(PanickingLog, || waiting.allocate_timeout(TIMEOUT).map(drop).is_ok())
            });
            while arena.metrics().waiters == 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert!(thread.join().unwrap());
        }
    });
    assert_all_free(&arena);
}
