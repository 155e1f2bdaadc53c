//! Refusals while another thread claims and frees: each ends after a few passes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use uring_arena::{BuddyArena, BuddyGeometry, Buffer, FixedArena, PageSize};

use crate::support::nz;

/// A processor time that no refusal comes near, on a busy machine. In an optimised build, refusals
/// that wait for a quiet moment take hundreds of milliseconds, or do not end.
const TIME_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 20 });

/// The time for which a test asks. A refusal that does not end is one of the first.
const ASKING: Duration = Duration::from_secs(1);

fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Asks over and over while another thread runs `churn`. Returns the longest processor time of one
/// call of `ask`.
fn longest_of(churn: impl Fn() + Sync, ask: impl Fn()) -> Duration {
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Other threads must not keep the asking one from an end for ever, not even if it fails.
    let deadline = Instant::now() + 3 * ASKING;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                churn();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        while rounds.load(Ordering::Relaxed) < 10 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        let mut longest = Duration::ZERO;
        while begin.elapsed() < ASKING {
            let before = processor_time();
            ask();
            longest = longest.max(processor_time() - before);
        }
        stop.store(true, Ordering::Relaxed);
        longest
    })
}

/// Builds an arena with a small block claimed in every 8 KiB: a block of 8 KiB is never free.
fn arena_of_holes(bytes: usize) -> (BuddyArena, Vec<Buffer>) {
    let geometry = BuddyGeometry::exact(nz(bytes), nz(256)).unwrap();
    let arena = BuddyArena::builder(geometry).page_size(PageSize::Unknown).build().unwrap();
    let mut held: Vec<Buffer> =
        (0..bytes / 256).map(|_| arena.allocate(nz(256)).unwrap()).collect();
    held.retain(|buffer| buffer.slot_index().unwrap() % 32 == 5);
    (arena, held)
}

#[test]
fn a_block_that_is_never_free_is_refused_in_time() {
    let (arena, held) = arena_of_holes(64 << 20);
    let longest = longest_of(
        || drop(arena.allocate(nz(256)).unwrap()),
        || assert!(arena.allocate(nz(8192)).is_err()),
    );
    assert!(longest < TIME_MAX, "a refusal took {longest:?}");
    drop(held);
    assert_eq!(arena.metrics().largest_free_block, 64 << 20);
}

#[test]
fn a_wait_for_a_block_ends_in_time() {
    let (arena, held) = arena_of_holes(64 << 20);
    let longest = longest_of(
        || drop(arena.allocate(nz(256)).unwrap()),
        || assert!(arena.allocate_timeout(nz(8192), Duration::ZERO).is_err()),
    );
    assert!(longest < TIME_MAX, "a wait for no time took {longest:?}");
    drop(held);
}

#[test]
fn a_slot_is_refused_in_time_while_the_last_one_comes_and_goes() {
    let arena = FixedArena::with_sizes(1 << 20, 16).page_size(PageSize::Unknown).build().unwrap();
    let mut held = Vec::new();
    arena.allocate_many((1 << 20) - 1, |buffer| held.push(buffer));
    let longest = longest_of(|| drop(arena.allocate()), || drop(arena.allocate()));
    assert!(longest < TIME_MAX, "a refusal took {longest:?}");
    let refilled = longest_of(
        || drop(arena.allocate()),
        || {
            assert!(arena.allocate_many(64, drop) <= 64);
        },
    );
    assert!(refilled < TIME_MAX, "a refill took {refilled:?}");
    drop(held);
    assert_eq!(arena.slot_states().free, 1 << 20);
}

/// Two threads that hold a slot each, and two slots: neither is ever refused, though the slot that
/// is free moves about.
#[test]
fn who_may_claim_is_never_refused() {
    let arena = FixedArena::new(65, 16).unwrap();
    let held: Vec<Buffer> = (0..63).map(|_| arena.allocate().unwrap()).collect();
    let churn = || {
        for _ in 0..10_000 {
            drop(arena.allocate().expect("a slot for each of two threads"));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(churn);
        scope.spawn(churn);
    });
    drop(held);
    assert_eq!(arena.metrics().allocations_failed, 0);
}

/// The same with blocks, whose words others split and merge meanwhile.
#[test]
fn what_fits_at_every_instant_is_never_refused() {
    let arena = BuddyArena::builder(BuddyGeometry::exact(nz(1 << 18), nz(256)).unwrap());
    let arena = arena.build().unwrap();
    let churn = |len: usize| {
        let arena = &arena;
        move || {
            for _ in 0..5_000 {
                // At most a quarter of the arena each: a quarter is free at every instant.
                drop(arena.allocate(nz(len)));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(churn(1 << 16));
        scope.spawn(churn(1 << 13));
        for _ in 0..5_000 {
            drop(arena.allocate(nz(256)).expect("fits at every instant"));
        }
    });
    assert_eq!(arena.metrics().largest_free_block, 1 << 18);
}
