//! Foreign code that panics, nests, or comes back: wakers, tasks that end, policies.
#![allow(unsafe_code)] // a waker with a `clone` of its own

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use bytes::BufMut;
use uring_arena::{
    AsyncBuddyArena, AsyncFixedArena, BuddyArena, BuddyGeometry, FixedArena, NotifyRegistration,
    NotifyWaiters, Waiter,
};

use crate::support::{Panics, TIMEOUT, Wakes, assert_all_free, nz};

fn slots(count: usize) -> AsyncFixedArena {
    FixedArena::with_sizes(count, 64).build_async().unwrap()
}

/// Builds an arena of `units` smallest blocks of 64 bytes.
fn blocks(units: usize) -> AsyncBuddyArena {
    let geometry = BuddyGeometry::exact(nz(64 * units), nz(64)).unwrap();
    BuddyArena::builder(geometry).build_async().unwrap()
}

fn poll_with<F: Future>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

fn panics(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Runs `body` on a thread of its own: one that is locked up fails the test.
fn within_time(body: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        done.send(()).unwrap();
    });
    match wait.recv_timeout(TIMEOUT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("locked up"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn a_panic_of_one_waker_loses_no_other_wake() {
    let arena = blocks(8);
    let whole = arena.allocate(nz(512)).unwrap();
    let (bad, woken) = (Waker::from(Arc::new(Panics)), Arc::new(Wakes::default()));
    let good = Waker::from(woken.clone());
    // Every other waker panics.
    let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(arena.allocate_async(nz(64)))).collect();
    for (claim, waker) in waiting.iter_mut().zip([&bad, &good].into_iter().cycle()) {
        assert!(poll_with(claim, waker).is_pending());
    }
    assert!(panics(|| drop(whole)), "the first panic goes on");
    assert_eq!(woken.count(), 4, "served, and not woken");
    for claim in &mut waiting {
        assert!(poll_with(claim, Waker::noop()).is_ready());
    }
    drop(waiting);
    assert_all_free(&arena);
}

/// A free in the middle of a panic: a second panic would end the process.
#[test]
fn a_waker_that_panics_while_its_thread_panics_ends_nothing() {
    let arena = slots(1);
    let held = arena.allocate().unwrap();
    let mut waiting = Box::pin(arena.allocate_async());
    assert!(poll_with(&mut waiting, &Waker::from(Arc::new(Panics))).is_pending());
    let died = panics(move || {
        let _held = held;
        panic!("the first panic");
    });
    assert!(died);
    assert!(poll_with(&mut waiting, Waker::noop()).is_ready());
}

/// A waker that panics when it is dropped.
struct PanicsInDrop;

impl Wake for PanicsInDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the end of a waker");
        }
    }
}

#[test]
fn a_waker_that_panics_in_its_drop_loses_nothing() {
    let arena = slots(1);
    let held = arena.allocate().unwrap();
    let (mut first, mut second) =
        (Box::pin(arena.allocate_async()), Box::pin(arena.allocate_async()));
    assert!(poll_with(&mut first, &Waker::from(Arc::new(PanicsInDrop))).is_pending());
    let woken = Arc::new(Wakes::default());
    assert!(poll_with(&mut second, &Waker::from(woken.clone())).is_pending());
    // The poll drops the waker that it replaces. A future of the compiler's is over when it panics.
    assert!(panics(|| assert!(poll_with(&mut first, Waker::noop()).is_pending())));
    // A wait that ends drops its waker, too.
    let mut third = Box::pin(arena.allocate_async());
    assert!(poll_with(&mut third, &Waker::from(Arc::new(PanicsInDrop))).is_pending());
    assert!(panics(|| drop(third)));
    drop(held);
    assert_eq!(woken.count(), 1);
    assert!(poll_with(&mut second, Waker::noop()).is_ready());
    drop((first, second));
    assert_all_free(&arena);
}

/// Wakers whose `clone` runs a claim of the same arena.
static CLAIMS_WHEN_CLONED: RawWakerVTable = RawWakerVTable::new(
    |arena| {
        // SAFETY: the wakers are made from leaked arenas.
        let claimed = unsafe { &*arena.cast::<FixedArena>() };
        drop(claimed.allocate_timeout(Duration::from_millis(1)));
        RawWaker::new(arena, &CLAIMS_WHEN_CLONED)
    },
    |_| {},
    |_| {},
    |_| {},
);

fn claims_when_cloned(arena: &FixedArena) -> Waker {
    let arena: *const FixedArena = Box::leak(Box::new(arena.clone()));
    // SAFETY: the functions of the table take a shared arena that lives for ever, on any thread.
    unsafe { Waker::from_raw(RawWaker::new(arena.cast(), &CLAIMS_WHEN_CLONED)) }
}

#[test]
fn a_waker_is_cloned_outside_of_the_lock() {
    within_time(|| {
        let arena = slots(1);
        let held = arena.allocate().unwrap();
        let waker = claims_when_cloned(&arena);
        let mut waiting = Box::pin(arena.allocate_async());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        drop(held);
        assert!(poll_with(&mut waiting, &waker).is_ready());
    });
}

#[test]
fn a_waker_is_cloned_outside_of_the_lock_of_a_policy() {
    within_time(|| {
        let arena = FixedArena::with_sizes(1, 64).build_async_with(Counted::default()).unwrap();
        let held = arena.allocate().unwrap();
        let waker = claims_when_cloned(&arena);
        let mut waiting = Box::pin(arena.allocate_async());
        assert!(poll_with(&mut waiting, &waker).is_pending());
        drop(held);
        assert!(poll_with(&mut waiting, &waker).is_ready());
    });
}

/// A policy of the user's over the ordinary one.
#[derive(Clone)]
struct Counted(NotifyWaiters, Arc<AtomicUsize>);

impl Default for Counted {
    fn default() -> Counted {
        Counted(NotifyWaiters::new(1), Arc::default())
    }
}

impl Waiter for Counted {
    type Registration = NotifyRegistration;

    fn register(&self) -> NotifyRegistration {
        Waiter::register(&self.0)
    }

    fn wake(&self) {
        self.1.fetch_add(1, Ordering::SeqCst);
        Waiter::wake(&self.0);
    }
}

/// A task whose executor is gone: its waker is all that keeps it, and a wake drops it.
struct Orphan {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Wake for Orphan {
    fn wake(self: Arc<Self>) {}
}

/// Polls a task once, and leaves it to its waker.
fn orphan(task: impl Future<Output = ()> + Send + 'static) {
    let orphan = Arc::new(Orphan { task: Mutex::new(Some(Box::pin(task))) });
    let waker = Waker::from(orphan.clone());
    let mut task = orphan.task.lock().unwrap();
    let polled = task.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
}

/// The number of tasks: many times what the stack of a thread has room for, if each ends within
/// the wake of the one before.
const ORPHANS: usize = 100_000;

#[test]
fn tasks_that_end_in_their_wakes_do_not_nest() {
    let arena = slots(1);
    let held = arena.allocate().unwrap();
    for _ in 0..ORPHANS {
        let arena = arena.clone();
        orphan(async move { drop(arena.allocate_async().await) });
    }
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn tasks_that_wait_for_blocks_and_end_in_their_wakes_do_not_nest() {
    let arena = blocks(4);
    let held = arena.allocate(nz(256)).unwrap();
    for number in 0..ORPHANS / 4 {
        let arena = arena.clone();
        let bytes = nz(64 << (number % 3));
        orphan(async move { drop(arena.allocate_async(bytes).await) });
    }
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn tasks_that_wait_under_a_policy_and_end_in_their_wakes_do_not_nest() {
    let policy = Counted::default();
    let arena = FixedArena::with_sizes(1, 64).build_async_with(policy.clone()).unwrap();
    let held = arena.allocate().unwrap();
    for _ in 0..ORPHANS {
        let arena = arena.clone();
        orphan(async move { drop(arena.allocate_async().await) });
    }
    drop(held);
    assert_eq!(policy.1.load(Ordering::SeqCst), 1);
    assert_all_free(&arena);
}

/// A wake that waits for another wake, a few levels deep: none is put off until it returns.
#[test]
fn a_wake_may_wait_for_a_thread_that_it_wakes() {
    struct Hands {
        held: Mutex<Option<uring_arena::Buffer>>,
        served: Mutex<mpsc::Receiver<()>>,
    }

    impl Wake for Hands {
        fn wake(self: Arc<Self>) {
            drop(self.held.lock().unwrap().take());
            self.served.lock().unwrap().recv_timeout(TIMEOUT).expect("the thread is woken now");
        }
    }

    within_time(|| {
        let (first, second) = (slots(1), slots(1));
        let (held, other) = (first.allocate().unwrap(), second.allocate().unwrap());
        let (sender, served) = mpsc::channel();
        let waiting_thread = {
            let second = second.clone();
            std::thread::spawn(move || {
                drop(second.allocate_timeout(TIMEOUT).unwrap());
                sender.send(()).unwrap();
            })
        };
        let hands = Hands { held: Mutex::new(Some(other)), served: Mutex::new(served) };
        let mut waiting = Box::pin(first.allocate_async());
        assert!(poll_with(&mut waiting, &Waker::from(Arc::new(hands))).is_pending());
        drop(held);
        waiting_thread.join().unwrap();
    });
}

/// A spill frees the slot, which wakes foreign code: what was written stays in the buffer.
#[test]
fn a_spill_whose_free_panics_keeps_the_bytes() {
    let arena = FixedArena::with_sizes(1, 16).auto_spill().build_async().unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"before");
    let mut waiting = Box::pin(arena.allocate_async());
    assert!(poll_with(&mut waiting, &Waker::from(Arc::new(Panics))).is_pending());
    assert!(panics(|| buffer.put_slice(&[7; 100])));
    assert_eq!(&buffer[..], b"before");
    assert!(buffer.is_spilled());
    assert!(poll_with(&mut waiting, Waker::noop()).is_ready(), "the slot was freed");
    buffer.put_slice(b" and after");
    assert_eq!(&buffer.freeze()[..], b"before and after");
    drop(waiting);
    assert_all_free(&arena);
}

/// A policy that panics is told of the next free all the same, and no slot is lost.
#[test]
fn a_policy_that_panics_loses_no_slot() {
    struct Bad(NotifyWaiters);

    impl Waiter for Bad {
        type Registration = NotifyRegistration;

        fn register(&self) -> NotifyRegistration {
            Waiter::register(&self.0)
        }

        fn wake(&self) {
            panic!("a policy of somebody else's");
        }
    }

    let bad = Bad(NotifyWaiters::new(1));
    let arena = FixedArena::with_sizes(1, 64).build_async_with(bad).unwrap();
    for _ in 0..3 {
        let buffer = arena.allocate().unwrap();
        assert!(panics(|| drop(buffer)));
    }
    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live, metrics.allocations_ok, metrics.frees), (0, 3, 3));
}
