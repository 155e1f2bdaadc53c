use std::collections::BTreeSet;

use super::*;

fn free(map: &SlotBitmap, slot: u32) -> FreeOutcome {
    let (word, step) = map.prepare_free(slot);
    step.free(word)
}

#[test]
fn every_slot_count_serves_exactly_that_many_claims() {
    for slot_count in [1, 2, 31, 32, 33, 63, 64, 65, 1000, 1024, 40_000] {
        let map = SlotBitmap::new(slot_count).unwrap();
        let claimed: BTreeSet<u32> = std::iter::from_fn(|| map.claim()).collect();
        assert_eq!(claimed.len(), slot_count);
        assert_eq!(claimed.last().copied(), Some(slot_count as u32 - 1));
        assert_eq!(map.live(), slot_count);
        assert_eq!(map.claim(), None);
        for slot in claimed {
            assert_eq!(free(&map, slot), FreeOutcome::Done);
        }
        assert_eq!(map.live(), 0);
    }
}

#[test]
fn a_freed_slot_is_claimed_next() {
    let map = SlotBitmap::new(100).unwrap();
    let first = map.claim().unwrap();
    assert_eq!(free(&map, first), FreeOutcome::Done);
    assert_eq!(map.claim(), Some(first));
}

#[test]
fn claim_many_takes_what_one_word_has() {
    let map = SlotBitmap::new(40).unwrap();
    let mut slots = Vec::new();
    while let Some((first, mask)) = map.claim_many(20) {
        assert!(mask.count_ones() <= 20);
        slots.extend((0..32).filter(|bit| mask & 1 << bit != 0).map(|bit| first + bit));
    }
    slots.sort_unstable();
    assert_eq!(slots, (0..40).collect::<Vec<u32>>());
}

#[test]
fn a_closed_map_tells_each_word_drained_once() {
    let map = SlotBitmap::new(40).unwrap();
    let slots: Vec<u32> = std::iter::from_fn(|| map.claim()).take(34).collect();
    assert_eq!(map.close(), 0);
    let drained =
        slots.iter().filter(|&&slot| free(&map, slot) == FreeOutcome::ArenaDrained).count();
    assert_eq!(drained, 2);
}

#[test]
fn a_word_with_waiters_is_freed_only_by_the_slow_road() {
    let map = SlotBitmap::new(2).unwrap();
    let slot = map.claim().unwrap();
    map.set_waiters_flags();
    assert_eq!(free(&map, slot), FreeOutcome::HasWaiters);
    assert_eq!(map.live(), 1);
    assert_eq!(map.free_ignoring_waiters(slot), FreeOutcome::Done);
    assert_eq!(map.live(), 0);
    map.clear_waiters_flags();
    let slot = map.claim().unwrap();
    assert_eq!(free(&map, slot), FreeOutcome::Done);
}

/// A thread that holds one slot at a time and as many threads as slots: no claim may ever fail,
/// though slots are freed behind and claimed before a claimer that looks for one.
#[test]
fn as_many_threads_as_slots_never_see_a_full_map() {
    for slot_count in [1usize, 3, 33, 65] {
        let threads = slot_count.min(4);
        let map = SlotBitmap::new(slot_count).unwrap();
        let held: Vec<u32> = (threads..slot_count).map(|_| map.claim().unwrap()).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let slot = map.claim().expect("one slot for each thread");
                        assert_eq!(free(&map, slot), FreeOutcome::Done);
                    }
                });
            }
        });
        assert_eq!(map.live(), held.len());
    }
}
