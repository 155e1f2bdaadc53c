//! Claims that wait for slots: on tokio, on a bare executor, and on threads without any.
//!
//! Other executors are in `executors.rs`.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{Wakes, assert_all_free, nz};
use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use uring_arena::{
    AllocError, AsyncFixedArena, BuddyArena, Buffer, FixedArena, FixedArenaBuilder, NotifyWaiters,
};

fn slots(count: usize) -> FixedArenaBuilder {
    FixedArena::with_slot_capacity(nz(count), nz(64))
}

fn arena(count: usize) -> AsyncFixedArena {
    slots(count).build_async().unwrap()
}

fn fill(arena: &FixedArena) -> Vec<Buffer> {
    std::iter::from_fn(|| arena.allocate().ok()).collect()
}

fn poll_with<F: Future>(future: &mut Pin<&mut F>, count: &Arc<Wakes>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(&Waker::from(count.clone())))
}

#[test]
fn futures_are_sendable() {
    fn sendable<T: Send>(_: T) {}
    let arena = arena(1);
    sendable(arena.allocate_async());
}

#[test]
fn waiters_are_served_in_order_of_arrival() {
    let arena = arena(2);
    let held = fill(&arena);
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut pool = LocalPool::new();
    for number in 0..100 {
        let (arena, order) = (arena.clone(), order.clone());
        let task = async move {
            drop(arena.allocate_async().await);
            order.borrow_mut().push(number);
        };
        pool.spawner().spawn_local(task).unwrap();
    }
    pool.run_until_stalled();
    drop(held);
    pool.run();
    assert_eq!(*order.borrow(), (0..100).collect::<Vec<_>>());
    assert_all_free(&arena);
}

#[test]
fn a_newcomer_does_not_overtake_a_waiter() {
    let arena = arena(1);
    let held = arena.allocate().unwrap();
    let count = Arc::new(Wakes::default());
    let mut waiting = pin!(arena.allocate_async());
    assert!(poll_with(&mut waiting, &count).is_pending());
    drop(held);
    assert_eq!(count.count(), 1);
    assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
    assert!(poll_with(&mut waiting, &count).is_ready());
    assert!(arena.allocate().is_ok());
}

/// One free wakes one task, however many wait.
#[test]
fn eight_slots_wake_eight_and_no_more() {
    let arena = arena(8);
    let held = fill(&arena);
    let counts: Vec<_> = (0..12).map(|_| Arc::new(Wakes::default())).collect();
    let mut waiting: Vec<_> = (0..12).map(|_| Box::pin(arena.allocate_async())).collect();
    for (future, count) in waiting.iter_mut().zip(&counts) {
        assert!(poll_with(&mut future.as_mut(), count).is_pending());
    }
    drop(held);
    let wakes: Vec<_> = counts.iter().map(|count| count.count()).collect();
    assert_eq!(wakes, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_wait_dropped_after_its_wake_hands_the_slot_on() {
    let arena = arena(1);
    let held = arena.allocate().unwrap();
    let (count, other_count) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut first = Box::pin(arena.allocate_async());
    let mut second = pin!(arena.allocate_async());
    assert!(poll_with(&mut first.as_mut(), &count).is_pending());
    assert!(poll_with(&mut second, &other_count).is_pending());
    drop(held);
    drop(first);
    assert_eq!(other_count.count(), 1);
    assert!(poll_with(&mut second, &other_count).is_ready());
    assert_all_free(&arena);
}

#[test]
fn waiting_is_no_failure_and_a_timeout_is_one() {
    let arena = arena(1);
    let held = arena.allocate().unwrap();
    let mut waiting = Box::pin(arena.allocate_async());
    for _ in 0..10 {
        assert!(poll_with(&mut waiting.as_mut(), &Arc::default()).is_pending());
    }
    drop(waiting);
    assert_eq!(arena.metrics().allocations_failed, 0);
    assert_eq!(
        arena.allocate_timeout(Duration::from_millis(2)).unwrap_err(),
        AllocError::ArenaFull
    );
    assert_eq!(arena.allocate_timeout(Duration::ZERO).unwrap_err(), AllocError::ArenaFull);
    assert_eq!(arena.metrics().allocations_failed, 2);
    drop(held);
    assert_all_free(&arena);
}

/// A claim that finds a slot leaves nothing behind in the queue. In arena-alligator each such claim
/// leaves an entry that a later waiter is queued behind, and hangs.
#[test]
fn uncontended_claims_leave_nothing_behind() {
    let arena = arena(1);
    block_on(async {
        for _ in 0..20_000 {
            drop(arena.allocate_async().await);
        }
        let held = arena.allocate_async().await;
        let freeing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            drop(held);
        });
        drop(arena.allocate_async().await);
        freeing.join().unwrap();
    });
    assert_all_free(&arena);
}

#[test]
fn threads_and_tasks_share_one_queue() {
    let arena = arena(1);
    let held = arena.allocate().unwrap();
    let mut first = pin!(arena.allocate_async());
    assert!(poll_with(&mut first, &Arc::default()).is_pending());
    let other = arena.clone();
    let thread =
        std::thread::spawn(move || other.allocate_timeout(Duration::MAX).unwrap().capacity());
    drop(held);
    let Poll::Ready(buffer) = poll_with(&mut first, &Arc::default()) else {
        panic!("first come, first served")
    };
    drop(buffer);
    assert_eq!(thread.join().unwrap(), 64);
    assert_all_free(&arena);
}

#[test]
fn an_arena_of_many_words_wakes_too() {
    let arena = arena(100_000);
    let mut held = fill(&arena);
    for at in [0, 50_000, 99_999] {
        let mut waiting = pin!(arena.allocate_async());
        assert!(poll_with(&mut waiting, &Arc::default()).is_pending());
        drop(held.swap_remove(at));
        let Poll::Ready(buffer) = poll_with(&mut waiting, &Arc::default()) else {
            panic!("no wake")
        };
        held.push(buffer);
    }
    drop(held);
    assert_all_free(&arena);
}

/// A task whose executor is gone lives in its waker only: the wake drops the task and its wait.
#[test]
fn a_wake_that_drops_the_waiting_task_does_not_lock_up() {
    type Task = Mutex<Option<Pin<Box<dyn Future<Output = Buffer> + Send>>>>;

    struct Orphan {
        task: Task,
        executor: mpsc::SyncSender<Arc<Orphan>>,
    }

    impl Wake for Orphan {
        fn wake(self: Arc<Self>) {
            let executor = self.executor.clone();
            drop(executor.send(self));
        }
    }

    let arena = arena(1);
    let held = arena.allocate().unwrap();
    let (executor, gone) = mpsc::sync_channel(8);
    let waiting = arena.clone();
    let task: Task = Mutex::new(Some(Box::pin(async move { waiting.allocate_async().await })));
    let orphan = Arc::new(Orphan { task, executor });
    let waker = Waker::from(orphan.clone());
    let polled = orphan
        .task
        .lock()
        .unwrap()
        .as_mut()
        .unwrap()
        .as_mut()
        .poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop((orphan, waker, gone));
    drop(held);
    assert_all_free(&arena);
}

/// A waker may free other slots of the same arena.
#[test]
fn a_waker_that_frees_does_not_lock_up() {
    struct Frees(Mutex<Option<Buffer>>);

    impl Wake for Frees {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }

    let arena = arena(2);
    let mut held = fill(&arena);
    let waker = Waker::from(Arc::new(Frees(Mutex::new(held.pop()))));
    let (mut first, mut second) = (pin!(arena.allocate_async()), pin!(arena.allocate_async()));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(poll_with(&mut second, &Arc::default()).is_pending());
    drop(held);
    assert!(poll_with(&mut second, &Arc::default()).is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tokio_tasks_share_four_slots() {
    let arena = arena(4);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let arena = arena.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let buffer = arena.allocate_async().await;
                    tokio::task::yield_now().await;
                    drop(buffer.freeze());
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .expect("no wake is lost")
            .unwrap();
    }
    assert_all_free(&arena);
    assert_eq!(arena.metrics().allocations_failed, 0);
}

/// One policy serves two arenas, and neither takes the wakes of the other.
#[test]
fn two_arenas_may_share_the_ordinary_policy() {
    let policy = NotifyWaiters::new(1);
    let one = slots(1).build_async_with(policy.clone()).unwrap();
    let two = slots(1).build_async_with(policy).unwrap();
    let (held_one, held_two) = (one.allocate().unwrap(), two.allocate().unwrap());
    let (mut wait_one, mut wait_two) = (pin!(one.allocate_async()), pin!(two.allocate_async()));
    assert!(poll_with(&mut wait_one, &Arc::default()).is_pending());
    assert!(poll_with(&mut wait_two, &Arc::default()).is_pending());
    drop(held_two);
    assert!(poll_with(&mut wait_two, &Arc::default()).is_ready());
    drop(held_one);
    assert!(poll_with(&mut wait_one, &Arc::default()).is_ready());
}

/// The flag that sends frees to the queue is still set when the arena is closed, and its last
/// buffers are dropped on two threads at once: each free may be the one that ends the arena.
#[test]
fn the_last_frees_end_an_arena_whose_flags_are_stale() {
    let rounds = if cfg!(miri) { 3 } else { 300 };
    for round in 0..rounds {
        let (fixed, buddy) = (arena(2), BuddyArena::with_sizes(128, 64).build_async().unwrap());
        let held = [
            fixed.allocate().unwrap(),
            fixed.allocate().unwrap(),
            buddy.allocate_bytes(64).unwrap(),
            buddy.allocate_bytes(64).unwrap(),
        ];
        let (mut slot, mut block) =
            (Box::pin(fixed.allocate_async()), Box::pin(buddy.allocate_bytes_async(64)));
        assert!(slot.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(block.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop((slot, block));
        let [first, second, third, fourth] = held;
        let other = std::thread::spawn(move || drop((second, fourth)));
        if round % 2 == 0 {
            drop((fixed, buddy));
            drop((first, third));
        } else {
            drop((first, third));
            drop((fixed, buddy));
        }
        other.join().unwrap();
    }
}
