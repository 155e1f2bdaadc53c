//! Threads part again after a history that made them meet.
//!
//! While an arena is nearly full, all threads find memory in the same few places. They must part
//! again afterwards. The places are counted here, never the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use uring_arena::{BuddyArena, BuddyGeometry, Buffer, FixedArena, PageSize};

use crate::support::nz;

/// A watchdog: threads that do not part within this time never do.
const LIMIT: Duration = Duration::from_secs(60);

/// The claims that each thread makes between two looks at where the threads are.
const CLAIMS: usize = 20_000;

/// A kind of arena: how to claim, and the place of a claim. No two threads should share a place.
struct Kind<'a> {
    claim: &'a (dyn Fn() -> Option<Buffer> + Sync),
    /// The number of slots, or of smallest blocks, whose records share cache lines.
    per_place: u32,
}

impl Kind<'_> {
    fn place(&self, buffer: &Buffer) -> u32 {
        buffer.slot_index().unwrap() / self.per_place
    }

    /// Claims and frees many times. Returns the place of the last claim.
    fn churn(&self) -> u32 {
        let mut place = u32::MAX;
        for _ in 0..CLAIMS {
            // With many threads and few slots a claim may find nothing.
            if let Some(buffer) = (self.claim)() {
                place = self.place(&buffer);
            }
        }
        place
    }

    /// Runs `threads` through a history, and expects that they part after it.
    ///
    /// Returns `false` if two of them began in one place: their numbers happen to have that place
    /// in common.
    fn threads_part(
        &self,
        threads: usize,
        history: &(dyn Fn(&Kind) -> Vec<Buffer> + Sync),
    ) -> bool {
        let places = Mutex::new(vec![0; threads]);
        let (barrier, began_apart) = (Barrier::new(threads), AtomicBool::new(false));
        let (parted, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        let all_differ = || {
            let mut sorted = places.lock().unwrap().clone();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        let held = Mutex::new(Vec::new());
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (places, barrier, held) = (&places, &barrier, &held);
                let (began_apart, parted, rounds) = (&began_apart, &parted, &rounds);
                scope.spawn(move || {
                    places.lock().unwrap()[thread] = self.churn();
                    if barrier.wait().is_leader() {
                        began_apart.store(all_differ(), Ordering::Relaxed);
                        *held.lock().unwrap() = history(self);
                    }
                    barrier.wait();
                    // Every thread has to look for what is left.
                    self.churn();
                    if barrier.wait().is_leader() {
                        held.lock().unwrap().clear();
                    }
                    barrier.wait();
                    while began_apart.load(Ordering::Relaxed) {
                        let place = self.churn();
                        places.lock().unwrap()[thread] = place;
                        if barrier.wait().is_leader() {
                            rounds.fetch_add(1, Ordering::Relaxed);
                            let is_over = all_differ() || begin.elapsed() > LIMIT;
                            parted.store(is_over, Ordering::Relaxed);
                        }
                        barrier.wait();
                        if parted.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
        });
        let began_apart = began_apart.into_inner();
        assert!(
            !began_apart || all_differ(),
            "after {} rounds of {CLAIMS} claims {threads} threads still meet in places {:?}",
            rounds.into_inner(),
            places.into_inner().unwrap(),
        );
        began_apart
    }
}

/// Runs teams until one of them began apart: their threads' numbers are given out by the process.
fn a_team_parts(threads: usize, run: impl Fn(usize) -> bool) {
    let teams = (0..100).take_while(|_| !run(threads)).count();
    assert!(teams < 100, "no {threads} threads begin in places of their own");
}

/// Claims all but a few slots, or blocks, which lie side by side.
fn nearly_full(kind: &Kind) -> Vec<Buffer> {
    let mut held: Vec<Buffer> = std::iter::from_fn(|| (kind.claim)()).collect();
    held.truncate(held.len() - 20);
    held
}

/// Claims everything, and frees every other slot, or block, of the first places.
fn every_other_freed(kind: &Kind) -> Vec<Buffer> {
    let mut held: Vec<Buffer> = std::iter::from_fn(|| (kind.claim)()).collect();
    let first = held.iter().map(|buffer| kind.place(buffer)).min().unwrap();
    let mut number = 0;
    held.retain(|buffer| {
        number += 1;
        kind.place(buffer) > first + 1 || number % 2 == 0
    });
    held
}

fn fixed_parts(threads: usize, history: &(dyn Fn(&Kind) -> Vec<Buffer> + Sync)) {
    a_team_parts(threads, |threads| {
        let arena = FixedArena::new(1024, 64).unwrap();
        let kind = Kind { claim: &|| arena.allocate().ok(), per_place: 32 };
        kind.threads_part(threads, history)
    });
}

fn buddy_parts(threads: usize, history: &(dyn Fn(&Kind) -> Vec<Buffer> + Sync)) {
    a_team_parts(threads, |threads| {
        let geometry = BuddyGeometry::exact(nz(16 << 20), nz(256)).unwrap();
        let arena = BuddyArena::builder(geometry).page_size(PageSize::Unknown).build().unwrap();
        // Sixteen rows share their cache lines.
        let kind = Kind { claim: &|| arena.allocate(nz(4096)).ok(), per_place: 512 };
        kind.threads_part(threads, history)
    });
}

#[test]
fn threads_part_after_the_slots_were_nearly_all_claimed() {
    fixed_parts(2, &nearly_full);
    fixed_parts(4, &nearly_full);
}

#[test]
fn threads_part_after_every_other_slot_was_freed() {
    fixed_parts(2, &every_other_freed);
}

#[test]
fn threads_part_after_the_blocks_were_nearly_all_claimed() {
    buddy_parts(2, &nearly_full);
    buddy_parts(4, &nearly_full);
}

#[test]
fn threads_part_after_every_other_block_was_freed() {
    buddy_parts(2, &every_other_freed);
}

/// Threads that claim many at once find their words as single claims do.
#[test]
fn threads_that_claim_many_part_too() {
    a_team_parts(2, |threads| {
        let arena = FixedArena::new(1024, 64).unwrap();
        let claim = || {
            let mut last = None;
            arena.allocate_many(4, |buffer| last = Some(buffer));
            last
        };
        Kind { claim: &claim, per_place: 32 }.threads_part(threads, &nearly_full)
    });
}
