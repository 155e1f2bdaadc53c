//! The models of the tree: one for each race, as small as it shows.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::BuddyAllocator;
use crate::slots::FreeOutcome;
use crate::sync::{AtomicUsize, Ordering};

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    // A pass over the tree is many accesses.
    builder.max_branches = 20_000;
    builder.check(body);
}

fn free(buddy: &BuddyAllocator, first: u32, order: u32) -> FreeOutcome {
    let (word, free) = buddy.prepare_free(first, order, order);
    free.free(word)
}

/// Two rows below one node: the smallest tree in which a word splits and merges.
const TWO_ROWS: u32 = 6;
/// A block in a row, a whole row, and both rows.
const HALF_ROW: u32 = 4;
const ROW: u32 = 5;

#[test]
fn claim_of_all_against_the_frees_of_two_neighbours() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(ROW).unwrap());
        let [left, right] = [0, 1].map(|_| buddy.claim(HALF_ROW).unwrap());
        let frees = [left, right].map(|first| {
            let buddy = buddy.clone();
            thread::spawn(move || free(&buddy, first, HALF_ROW))
        });
        let early = buddy.claim(ROW);
        let _ = frees.map(|thread| assert_eq!(thread.join().unwrap(), FreeOutcome::Done));
        let whole = early.or_else(|| buddy.claim(ROW));
        assert_eq!(whole, Some(0), "two buddies freed at once are one block");
    });
}

#[test]
fn claim_over_two_rows_against_the_last_free_in_one() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let first = buddy.claim(HALF_ROW).unwrap();
        let other = buddy.clone();
        let thread = thread::spawn(move || free(&other, first, HALF_ROW));
        let early = buddy.claim(TWO_ROWS);
        let _ = thread.join().unwrap();
        assert_eq!(early.or_else(|| buddy.claim(TWO_ROWS)), Some(0));
    });
}

#[test]
fn two_claims_of_one_block() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(ROW).unwrap());
        let _half = buddy.claim(HALF_ROW).unwrap();
        let other = buddy.clone();
        let thread = thread::spawn(move || other.claim(HALF_ROW).is_some());
        let mine = buddy.claim(HALF_ROW).is_some();
        let theirs = thread.join().unwrap();
        assert!(mine ^ theirs, "exactly one gets the last block");
    });
}

#[test]
fn a_claim_over_two_rows_against_a_claim_in_one() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        // One row is split and empty: it can go either way.
        let first = buddy.claim(0).unwrap();
        let _ = free(&buddy, first, 0);
        let other = buddy.clone();
        let thread = thread::spawn(move || other.claim(0).is_some());
        let large = buddy.claim(TWO_ROWS).is_some();
        let small = thread.join().unwrap();
        assert!(large ^ small, "large {large}, small {small}");
    });
}

#[test]
fn two_claims_split_the_same_row() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let _taken = buddy.claim(ROW).unwrap();
        let other = buddy.clone();
        let thread = thread::spawn(move || other.claim(HALF_ROW));
        let mine = buddy.claim(HALF_ROW).expect("half of the free row");
        let theirs = thread.join().unwrap().expect("the other half");
        assert_ne!(mine, theirs);
    });
}

#[test]
fn a_split_row_against_a_row_claimed_whole() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let first = buddy.claim(0).unwrap();
        let other = buddy.clone();
        let thread = thread::spawn(move || other.claim(HALF_ROW));
        let row = buddy.claim(ROW).expect("one row is free");
        let half = thread.join().unwrap().expect("half a row is free in the other");
        assert_eq!(row / 32, 1 - half / 32);
        assert_ne!(first / 16, half / 16);
    });
}

#[test]
fn two_claims_over_two_rows_merge_the_same_row() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let first = buddy.claim(0).unwrap();
        let _ = free(&buddy, first, 0);
        let other = buddy.clone();
        let thread = thread::spawn(move || other.claim(TWO_ROWS).is_some());
        let mine = buddy.claim(TWO_ROWS).is_some();
        assert!(mine ^ thread.join().unwrap());
    });
}

#[test]
fn after_small_and_large_claims_came_and_went_the_arena_is_whole() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let first = buddy.claim(0).unwrap();
        let _ = free(&buddy, first, 0);
        let other = buddy.clone();
        let thread = thread::spawn(move || {
            if let Some(first) = other.claim(0) {
                let _ = free(&other, first, 0);
            }
        });
        if let Some(first) = buddy.claim(TWO_ROWS) {
            let _ = free(&buddy, first, TWO_ROWS);
        }
        thread.join().unwrap();
        assert_eq!(buddy.claim(TWO_ROWS), Some(0));
    });
}

/// Half a row is free at every instant, but not always the same half. A pass that reads the rows
/// one after the other can miss it, and must not refuse.
#[test]
fn a_hole_that_moves_is_found() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let held: [u32; 3] = std::array::from_fn(|_| buddy.claim(HALF_ROW).unwrap());
        let full = held[0] / 32;
        assert_eq!(held[1] / 32, full, "two halves fill the first row");
        let other = buddy.clone();
        let thread = thread::spawn(move || {
            let _ = free(&other, held[0], HALF_ROW);
            other.tree.claim_in(1 - full, other.tree.levels.order(HALF_ROW));
        });
        buddy.claim(HALF_ROW).expect("there was a hole at every instant");
        thread.join().unwrap();
    });
}

#[test]
fn closing_against_the_last_frees_of_one_word() {
    closing_against_frees([HALF_ROW, HALF_ROW], 1);
}

#[test]
fn closing_against_the_last_frees_of_two_words() {
    closing_against_frees([HALF_ROW, ROW], 2);
}

/// Checks that the thread which brings the count to zero frees the memory, once, and after every
/// other free.
fn closing_against_frees(orders: [u32; 2], words: usize) {
    model(3, move || {
        let buddy = Arc::new(BuddyAllocator::new(TWO_ROWS).unwrap());
        let blocks = orders.map(|order| (buddy.claim(order).unwrap(), order));
        // Each drained word counts one down; the closing adds as many as it found in use.
        let pending = Arc::new(AtomicUsize::new(0));
        let memory = Arc::new(UnsafeCell::new([0u8; 2]));
        let frees = [0, 1].map(|number| {
            let (buddy, pending, memory) = (buddy.clone(), pending.clone(), memory.clone());
            thread::spawn(move || {
                let (first, order) = blocks[number];
                memory.with(|_| ());
                if free(&buddy, first, order) != FreeOutcome::ArenaDrained {
                    return;
                }
                // AcqRel: pairs with the other frees' and the closing's.
                if pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                    memory.with_mut(|_| ());
                }
            })
        });
        let in_use = buddy.word_count() - buddy.close();
        assert!(in_use <= words);
        // Frees that drained before the count was added have taken it below zero, which wraps.
        if pending.fetch_add(in_use, Ordering::AcqRel).wrapping_add(in_use) == 0 {
            memory.with_mut(|_| ());
        }
        let _ = frees.map(|thread| thread.join().unwrap());
        assert_eq!(pending.load(Ordering::Acquire), 0, "each word that was in use drained once");
    });
}

#[test]
fn a_free_and_a_waiter_do_not_miss_each_other() {
    model(3, || {
        let buddy = Arc::new(BuddyAllocator::new(ROW).unwrap());
        let first = buddy.claim(ROW).unwrap();
        let other = buddy.clone();
        let thread = thread::spawn(move || free(&other, first, ROW));
        buddy.set_waiters_flags();
        let served = buddy.claim(ROW).is_some();
        let freed = thread.join().unwrap();
        assert!(served ^ (freed == FreeOutcome::HasWaiters), "served, or the free must wake");
    });
}
