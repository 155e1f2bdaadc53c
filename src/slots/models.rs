//! The models of the bitmap: one for each race, named after it.

use loom::sync::Arc;
use loom::thread;

use super::{FreeOutcome, SlotBitmap};
use crate::sync::set_thread_index;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 100_000;
    builder.check(body);
}

fn free(bitmap: &SlotBitmap, slot: u32) -> FreeOutcome {
    let (word, free) = bitmap.prepare_free(slot);
    free.free(word)
}

#[test]
fn two_claims_of_one_slot() {
    model(|| {
        let bitmap = Arc::new(SlotBitmap::new(1).unwrap());
        let other = bitmap.clone();
        let thread = thread::spawn(move || other.claim());
        let mine = bitmap.claim();
        let theirs = thread.join().unwrap();
        assert_eq!([mine, theirs].iter().flatten().count(), 1);
    });
}

#[test]
fn a_free_against_a_claim() {
    model(|| {
        let bitmap = Arc::new(SlotBitmap::new(1).unwrap());
        let slot = bitmap.claim().unwrap();
        let other = bitmap.clone();
        let thread = thread::spawn(move || other.claim());
        assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
        let claimed = thread.join().unwrap().or_else(|| bitmap.claim());
        assert_eq!(claimed, Some(slot));
    });
}

/// Two slots in two words, and two threads that hold one each. A claim after a free is never
/// refused, even if the other thread's slot moves to the word that the search has read already.
#[test]
fn a_slot_that_moves_is_found() {
    model(|| {
        let bitmap = Arc::new(SlotBitmap::new(33).unwrap());
        let mut held: Vec<u32> = std::iter::from_fn(|| bitmap.claim()).collect();
        // Free: slot 32, in the second word. Held and about to move: slot 0, in the first.
        let moving = 0;
        held.retain(|&slot| slot != moving && slot != 32);
        assert_eq!(free(&bitmap, 32), FreeOutcome::Done);
        let other = bitmap.clone();
        let mover = thread::spawn(move || {
            assert_eq!(free(&other, moving), FreeOutcome::Done);
            set_thread_index(1);
            other.claim().expect("two slots, two threads")
        });
        // A number whose hint no claim has moved: this search begins at the first word.
        set_thread_index(2);
        bitmap.claim().expect("two slots, two threads");
        mover.join().unwrap();
    });
}
