//! Histories of one thread on the bitmap, and threads that compete for its slots.

use std::collections::BTreeSet;

use super::{FreeOutcome, SlotBitmap};

fn free(bitmap: &SlotBitmap, slot: u32) -> FreeOutcome {
    let (word, free) = bitmap.prepare_free(slot);
    free.free(word)
}

#[test]
fn every_slot_count_serves_exactly_that_many_claims() {
    for slot_count in [1, 2, 31, 32, 33, 63, 64, 65, 1000, 1024, 40_000] {
        let bitmap = SlotBitmap::new(slot_count).unwrap();
        let claimed: BTreeSet<u32> = std::iter::from_fn(|| bitmap.claim()).collect();
        assert_eq!(claimed.len(), slot_count);
        assert_eq!(claimed.last().copied(), Some(slot_count as u32 - 1));
        assert_eq!(bitmap.live(), slot_count);
        assert_eq!(bitmap.claim(), None);
        for slot in claimed {
            assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
        }
        assert_eq!(bitmap.live(), 0);
    }
}

#[test]
fn a_freed_slot_is_claimed_next() {
    let bitmap = SlotBitmap::new(100).unwrap();
    let first = bitmap.claim().unwrap();
    assert_eq!(free(&bitmap, first), FreeOutcome::Done);
    assert_eq!(bitmap.claim(), Some(first));
}

#[test]
fn claim_many_takes_what_one_word_has() {
    let bitmap = SlotBitmap::new(40).unwrap();
    let mut slots = Vec::new();
    while let Some((first, mask)) = bitmap.claim_many(20) {
        assert!(mask.count_ones() <= 20);
        slots.extend((0..32).filter(|bit| mask & 1 << bit != 0).map(|bit| first + bit));
    }
    slots.sort_unstable();
    assert_eq!(slots, (0..40).collect::<Vec<u32>>());
}

#[test]
fn a_closed_bitmap_drains_each_word_once() {
    let bitmap = SlotBitmap::new(40).unwrap();
    let slots: Vec<u32> = std::iter::from_fn(|| bitmap.claim()).take(34).collect();
    assert_eq!(bitmap.close(), 0);
    let drained =
        slots.iter().filter(|&&slot| free(&bitmap, slot) == FreeOutcome::ArenaDrained).count();
    assert_eq!(drained, 2);
}

#[test]
fn a_word_with_waiters_is_freed_only_by_a_free_that_ignores_them() {
    let bitmap = SlotBitmap::new(2).unwrap();
    let slot = bitmap.claim().unwrap();
    bitmap.set_waiters_flags();
    assert_eq!(free(&bitmap, slot), FreeOutcome::HasWaiters);
    assert_eq!(bitmap.live(), 1);
    assert_eq!(bitmap.free_ignoring_waiters(slot), FreeOutcome::Done);
    assert_eq!(bitmap.live(), 0);
    bitmap.clear_waiters_flags();
    let slot = bitmap.claim().unwrap();
    assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
}

/// Each thread holds one slot at a time, and there are as many threads as slots. No claim may fail,
/// though slots are freed behind a search and claimed before it.
#[test]
fn as_many_threads_as_slots_never_see_a_full_bitmap() {
    for slot_count in [1usize, 3, 33, 65] {
        let threads = slot_count.min(4);
        let bitmap = SlotBitmap::new(slot_count).unwrap();
        let held: Vec<u32> = (threads..slot_count).map(|_| bitmap.claim().unwrap()).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let slot = bitmap.claim().expect("one slot for each thread");
                        assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
                    }
                });
            }
        });
        assert_eq!(bitmap.live(), held.len());
    }
}
