//! One model per race of waiting, named after it, over the code that ships.

use loom::future::block_on;
use loom::thread;

use super::Lease;
use super::loom_tests::model;
use super::waiter::WaitForSlot;
use crate::{BuddyArena, BuddyGeometry, FixedArena};

fn claim(arena: &FixedArena) -> Option<Lease> {
    let (lease, _) = arena.handle().claim_slot()?;
    Some(lease)
}

/// A claim that waits, as tasks do it.
fn claim_waiting(arena: &FixedArena) -> Lease {
    claim(arena).unwrap_or_else(|| {
        let place = arena.handle().join_queue(0);
        claim(arena).unwrap_or_else(|| block_on(place))
    })
}

fn in_queue(arena: &FixedArena) -> WaitForSlot {
    arena.handle().join_queue(0)
}

#[test]
fn loom_wait_against_free() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let waiter = arena.clone();
        let thread = thread::spawn(move || drop(claim_waiting(&waiter)));
        drop(held);
        thread.join().unwrap();
    });
}

/// The first in the queue goes away while the slot is on its way to it: the second must get it.
#[test]
fn loom_cancel_against_wake() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let first = in_queue(&arena);
        let second = in_queue(&arena);
        let cancelling = thread::spawn(move || drop(first));
        let freeing = thread::spawn(move || drop(held));
        drop(block_on(second));
        cancelling.join().unwrap();
        freeing.join().unwrap();
        assert!(claim(&arena).is_some(), "nothing is left with a seat that is gone");
    });
}

#[test]
fn loom_two_frees_two_waiters() {
    model(2, |arena| {
        let (first, second) = (claim(&arena).unwrap(), claim(&arena).unwrap());
        let waiter = arena.clone();
        let waiting = thread::spawn(move || claim_waiting(&waiter));
        let freeing = thread::spawn(move || drop(first));
        let place = in_queue(&arena);
        drop(second);
        let mine = block_on(place);
        let theirs = waiting.join().unwrap();
        freeing.join().unwrap();
        drop((mine, theirs));
    });
}

/// While somebody sleeps a newcomer gets nothing, whatever comes back.
#[test]
fn loom_no_newcomer_overtakes() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let place = in_queue(&arena);
        let other = arena.clone();
        let newcomer = thread::spawn(move || assert!(claim(&other).is_none()));
        drop(held);
        newcomer.join().unwrap();
        drop(block_on(place));
    });
}

/// The bits are taken back for want of waiters while one arrives.
#[test]
fn loom_arrival_against_taking_the_bits_back() {
    model(2, |arena| {
        let (first, second) = (claim(&arena).unwrap(), claim(&arena).unwrap());
        drop(in_queue(&arena));
        let waiter = arena.clone();
        let waiting = thread::spawn(move || {
            // Both slots at once, so that a slot that is lost stops the model.
            let one = claim_waiting(&waiter);
            drop((claim_waiting(&waiter), one));
        });
        drop(first);
        drop(second);
        waiting.join().unwrap();
    });
}

/// A ring and a task wait for one slot: the ring looks once it is told, and the task is served
/// after it.
#[test]
fn loom_ring_and_task() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let bell = arena.handle().listen();
        let waiter = arena.clone();
        let task = thread::spawn(move || drop(claim_waiting(&waiter)));
        let freeing = thread::spawn(move || drop(held));
        block_on(bell);
        // A newcomer may have been faster; then its free tells again.
        drop(claim(&arena));
        task.join().unwrap();
        freeing.join().unwrap();
    });
}

/// The bit is still there when nobody waits any more, and the last handle goes while slots come
/// back.
#[test]
fn loom_last_handle_against_frees_with_a_stale_bit() {
    model(2, |arena| {
        let (first, second) = (claim(&arena).unwrap(), claim(&arena).unwrap());
        drop(in_queue(&arena));
        let freeing = thread::spawn(move || drop(first));
        let other = thread::spawn(move || drop(second));
        drop(arena);
        freeing.join().unwrap();
        other.join().unwrap();
    });
}

/// A waiter's own handle is the last one: it leaves while the slot is on its way.
#[test]
fn loom_last_handle_drop_with_a_waiter() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let place = in_queue(&arena);
        drop(arena);
        let freeing = thread::spawn(move || drop(held));
        drop(place);
        freeing.join().unwrap();
    });
}

/// Runs `body` in every order of its threads, with a buddy arena of `units` smallest blocks.
fn buddy_model(units: usize, body: impl Fn(BuddyArena) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(move || {
        let bytes = |n| std::num::NonZeroUsize::new(n).unwrap();
        let geometry = BuddyGeometry::exact(bytes(8 * units), bytes(8)).unwrap();
        body(BuddyArena::builder(geometry).build_unfaulted().unwrap().into_inner());
    });
}

fn claim_block(arena: &BuddyArena, order: u32) -> Option<Lease> {
    let (lease, _) = arena.handle().claim_block(order)?;
    Some(lease)
}

fn claim_block_waiting(arena: &BuddyArena, order: u32) -> Lease {
    claim_block(arena, order).unwrap_or_else(|| {
        let place = arena.handle().join_queue(order);
        claim_block(arena, order).unwrap_or_else(|| block_on(place))
    })
}

/// Two neighbours come back on two threads while somebody waits for both together.
#[test]
fn loom_large_waiter_against_two_small_frees() {
    buddy_model(2, |arena| {
        let (left, right) = (claim_block(&arena, 0).unwrap(), claim_block(&arena, 0).unwrap());
        let freeing = thread::spawn(move || drop(left));
        let waiter = arena.clone();
        let waiting = thread::spawn(move || drop(claim_block_waiting(&waiter, 1)));
        drop(right);
        freeing.join().unwrap();
        waiting.join().unwrap();
    });
}

/// One who waits for all and one, behind it, who waits for a part: the other is served when the
/// first is done.
#[test]
fn loom_large_and_small_waiter() {
    buddy_model(2, |arena| {
        let whole = claim_block(&arena, 1).unwrap();
        let large = arena.handle().join_queue(1);
        let small = arena.handle().join_queue(0);
        let freeing = thread::spawn(move || drop(whole));
        let waiting = thread::spawn(move || drop(block_on(large)));
        drop(block_on(small));
        freeing.join().unwrap();
        waiting.join().unwrap();
    });
}

/// The large one at the head goes away while what comes back could serve the small one behind it.
#[test]
fn loom_large_waiter_leaves_before_a_small_one() {
    buddy_model(2, |arena| {
        let whole = claim_block(&arena, 1).unwrap();
        let large = arena.handle().join_queue(1);
        let small = arena.handle().join_queue(0);
        let leaving = thread::spawn(move || drop(large));
        let freeing = thread::spawn(move || drop(whole));
        drop(block_on(small));
        leaving.join().unwrap();
        freeing.join().unwrap();
        assert!(claim_block(&arena, 1).is_some());
    });
}
