//! The models of waiting: one for each race of the queue, named after it, over the code that ships.
//! The races with the end of an arena are among the models of `lease`.

use std::task::{Context, Poll};

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use super::WaiterId;
use super::waiters::pool::Pool;
use crate::sync::set_thread_index;

/// Runs `body` in every order of its threads, with a pool that `make` makes.
fn model(make: fn() -> Pool, body: impl Fn(Arc<Pool>) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(move || body(Arc::new(make())));
}

fn one_slot() -> Pool {
    Pool::of_slots(1)
}

fn two_slots() -> Pool {
    Pool::of_slots(2)
}

fn two_min_blocks() -> Pool {
    Pool::of_blocks(1)
}

/// Waits in the queue until a grant is there.
fn take_grant(pool: &Pool, id: WaiterId) -> u32 {
    block_on(std::future::poll_fn(|context: &mut Context<'_>| -> Poll<u32> {
        pool.poll(id, context.waker())
    }))
}

/// Claims as a task does: it looks, joins if it found nothing, and waits.
fn claim_waiting(pool: &Pool, order: u32) -> u32 {
    pool.claim_or_join(order).unwrap_or_else(|id| take_grant(pool, id))
}

#[test]
fn a_claim_that_waits_against_a_free() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let other = pool.clone();
        let waiting = thread::spawn(move || claim_waiting(&other, 0));
        pool.free(held, 0);
        waiting.join().unwrap();
    });
}

/// The first waiter leaves while the slot is on its way to it: the second must get the slot.
#[test]
fn a_waiter_that_leaves_against_its_grant() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let (first, second) = (pool.join(0), pool.join(0));
        let (leaving, freeing) = (pool.clone(), pool.clone());
        let leaving = thread::spawn(move || leaving.leave(first));
        let freeing = thread::spawn(move || freeing.free(held, 0));
        let slot = take_grant(&pool, second);
        leaving.join().unwrap();
        freeing.join().unwrap();
        pool.free(slot, 0);
        assert!(pool.claim(0).is_some(), "no slot stays with a waiter that is gone");
    });
}

#[test]
fn two_frees_against_two_waiters() {
    model(two_slots, |pool| {
        let (first, second) = (pool.claim(0).unwrap(), pool.claim(0).unwrap());
        let (waiter, freer) = (pool.clone(), pool.clone());
        let waiting = thread::spawn(move || claim_waiting(&waiter, 0));
        let freeing = thread::spawn(move || freer.free(first, 0));
        let id = pool.join(0);
        pool.free(second, 0);
        let mine = take_grant(&pool, id);
        let theirs = waiting.join().unwrap();
        freeing.join().unwrap();
        assert_ne!(mine, theirs);
    });
}

/// While somebody waits a newcomer gets nothing, whatever is freed.
#[test]
fn a_newcomer_against_a_waiter() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let id = pool.join(0);
        let other = pool.clone();
        let newcomer = thread::spawn(move || assert!(other.claim(0).is_none()));
        pool.free(held, 0);
        newcomer.join().unwrap();
        take_grant(&pool, id);
    });
}

/// The flags are cleared for want of waiters while one arrives.
#[test]
fn an_arrival_against_clearing_the_flags() {
    model(two_slots, |pool| {
        let (first, second) = (pool.claim(0).unwrap(), pool.claim(0).unwrap());
        pool.leave(pool.join(0));
        let waiter = pool.clone();
        let waiting = thread::spawn(move || {
            // Both slots at once, so that a slot that is lost stops the model.
            let one = claim_waiting(&waiter, 0);
            assert_ne!(claim_waiting(&waiter, 0), one);
        });
        pool.free(first, 0);
        pool.free(second, 0);
        waiting.join().unwrap();
    });
}

/// Two neighbours are freed on two threads while somebody waits for both together.
#[test]
fn a_large_waiter_against_two_small_frees() {
    model(two_min_blocks, |pool| {
        let (left, right) = (pool.claim(0).unwrap(), pool.claim(0).unwrap());
        let (freer, waiter) = (pool.clone(), pool.clone());
        let freeing = thread::spawn(move || freer.free(left, 0));
        let waiting = thread::spawn(move || claim_waiting(&waiter, 1));
        pool.free(right, 0);
        freeing.join().unwrap();
        assert_eq!(waiting.join().unwrap(), 0);
    });
}

/// One waits for the whole arena, and one behind it for a part: the second is served when the first
/// is done.
#[test]
fn a_large_waiter_before_a_small_one() {
    model(two_min_blocks, |pool| {
        let whole = pool.claim(1).unwrap();
        let (large, small) = (pool.join(1), pool.join(0));
        let (freer, waiter) = (pool.clone(), pool.clone());
        let freeing = thread::spawn(move || freer.free(whole, 1));
        let waiting = thread::spawn(move || {
            let whole = take_grant(&waiter, large);
            waiter.free(whole, 1);
        });
        take_grant(&pool, small);
        freeing.join().unwrap();
        waiting.join().unwrap();
    });
}

/// The large waiter at the head leaves while what is freed could serve the small one behind it.
#[test]
fn a_large_waiter_that_leaves_before_a_small_one() {
    model(two_min_blocks, |pool| {
        let whole = pool.claim(1).unwrap();
        let (large, small) = (pool.join(1), pool.join(0));
        let (leaver, freer) = (pool.clone(), pool.clone());
        let leaving = thread::spawn(move || leaver.leave(large));
        let freeing = thread::spawn(move || freer.free(whole, 1));
        let first = take_grant(&pool, small);
        leaving.join().unwrap();
        freeing.join().unwrap();
        pool.free(first, 0);
        assert!(pool.claim(1).is_some());
    });
}

/// Two slots in two words, one of them free at every instant, but not always the same. A claim
/// while frees stand still finds it in one pass.
#[test]
fn a_refusal_against_a_slot_that_moves() {
    model(
        || Pool::of_slots(33),
        |pool| {
            let held: Vec<u32> = std::iter::from_fn(|| pool.claim(0)).collect();
            assert_eq!(held.len(), 33);
            // Free: slot 32, in the second word. Held and about to move: slot 0, in the first.
            pool.free(32, 0);
            let other = pool.clone();
            let mover = thread::spawn(move || {
                other.free(0, 0);
                set_thread_index(1);
                other.claim_still(0).expect("two slots, two threads")
            });
            set_thread_index(2);
            pool.claim_still(0).expect("two slots, two threads");
            mover.join().unwrap();
        },
    );
}

/// Half a row is free at every instant, but not always the same half.
#[test]
fn a_refusal_against_a_hole_that_moves() {
    const HALF_ROW: u32 = 4;
    model(
        || Pool::of_blocks(6),
        |pool| {
            let held: Vec<u32> = (0..3).map(|_| pool.claim(HALF_ROW).unwrap()).collect();
            let hole = (0..4).map(|half| half * 16).find(|half| !held.contains(half)).unwrap();
            let moving = held.into_iter().find(|half| half / 32 != hole / 32).unwrap();
            let other = pool.clone();
            let mover = thread::spawn(move || {
                other.free(moving, HALF_ROW);
                let _ = other.allocator.blocks().claim_at(hole, HALF_ROW);
            });
            pool.claim_still(HALF_ROW).expect("there was a hole at every instant");
            mover.join().unwrap();
        },
    );
}

/// A refusal leaves nothing behind that could keep a waiter from its slot.
#[test]
fn a_refusal_against_a_free_and_a_waiter() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let (freer, refused) = (pool.clone(), pool.clone());
        let freeing = thread::spawn(move || freer.free(held, 0));
        let claiming = thread::spawn(move || {
            if let Some(slot) = refused.claim_still(0) {
                refused.free(slot, 0);
            }
        });
        let slot = claim_waiting(&pool, 0);
        freeing.join().unwrap();
        claiming.join().unwrap();
        pool.free(slot, 0);
        assert!(pool.claim(0).is_some(), "the slot is free for the next one");
    });
}

/// Two claimants and two slots: neither waits, as neither is granted one beside that which it
/// found.
#[test]
fn two_claims_that_might_wait_and_two_slots() {
    model(
        || Pool::of_slots(33),
        |pool| {
            let held: Vec<u32> = std::iter::from_fn(|| pool.claim(0)).collect();
            assert_eq!(held.len(), 33);
            pool.free(32, 0);
            let other = pool.clone();
            let thread = thread::spawn(move || {
                other.free(0, 0);
                set_thread_index(1);
                other.claim_or_join(0).expect("two slots, two threads")
            });
            set_thread_index(2);
            pool.claim_or_join(0).expect("two slots, two threads");
            thread.join().unwrap();
        },
    );
}

/// An idle ring has the only slot, and begins to watch while somebody begins to wait. Either it
/// sees the waiter, or it is called.
#[test]
fn a_ring_that_begins_to_watch_against_a_waiter() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let other = pool.clone();
        let waiting = thread::spawn(move || claim_waiting(&other, 0));
        let watch = pool.waiters.new_watch_id();
        until(|waker| pool.waiters.watch(watch, waker, false).is_waited_for);
        pool.free(held, 0);
        waiting.join().unwrap();
    });
}

/// An idle ring has the only slot, and begins to watch while a claim is refused.
#[test]
fn a_ring_that_begins_to_watch_against_a_refusal() {
    model(one_slot, |pool| {
        let _held = pool.claim(0).unwrap();
        let other = pool.clone();
        let refused = thread::spawn(move || {
            assert!(other.claim(0).is_none());
            other.waiters.record_refusal();
        });
        let watch = pool.waiters.new_watch_id();
        until(|waker| pool.waiters.watch(watch, waker, true).refusals == 1);
        refused.join().unwrap();
        // A watch that was told does not hear of the next one before it is renewed.
        pool.waiters.record_refusal();
        assert_eq!(pool.waiters.refusals(), 2);
    });
}

/// Two rings watch, and one of them stops while somebody begins to wait: the other is called.
#[test]
fn a_watch_that_ends_against_a_waiter() {
    model(one_slot, |pool| {
        let held = pool.claim(0).unwrap();
        let (waiter, stopper) = (pool.clone(), pool.clone());
        let (ends, stays) = (pool.waiters.new_watch_id(), pool.waiters.new_watch_id());
        pool.waiters.watch(ends, std::task::Waker::noop(), true);
        let waiting = thread::spawn(move || claim_waiting(&waiter, 0));
        let stopping = thread::spawn(move || stopper.waiters.unwatch(ends));
        until(|waker| pool.waiters.watch(stays, waker, true).is_waited_for);
        pool.free(held, 0);
        stopping.join().unwrap();
        waiting.join().unwrap();
    });
}

/// Waits until `is_so`, which is asked again whenever its waker was called.
fn until(mut is_so: impl FnMut(&std::task::Waker) -> bool) {
    block_on(std::future::poll_fn(|context: &mut Context<'_>| {
        if is_so(context.waker()) { Poll::Ready(()) } else { Poll::Pending }
    }));
}
