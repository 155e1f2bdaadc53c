//! Wakers and wake policies that panic: no other that waits is harmed. The panic goes on to who
//! frees, when all else is done.
#![allow(unsafe_code)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use crate::support::{Wakes, assert_all_free, nz};
use uring_arena::{
    BuddyArena, BuddyGeometry, FixedArena, NotifyRegistration, NotifyWaiters, Waiter,
};

/// A waker that panics when it wakes, and counts that it was called.
#[derive(Default)]
struct Bomb(AtomicUsize);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a waker panics, as this test wants");
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Fails unless the drop passes a panic on.
fn drop_with_panic<T>(value: T) {
    let drops = std::panic::AssertUnwindSafe(|| drop(value));
    assert!(std::panic::catch_unwind(drops).is_err(), "the panic goes on");
}

#[test]
fn a_slot_is_freed_and_the_next_one_is_served_whatever_a_waker_does() {
    let arena = FixedArena::with_sizes(2, 64).build_async().unwrap();
    let held = [arena.allocate().unwrap(), arena.allocate().unwrap()];
    let (bomb, wakes) = (Arc::new(Bomb::default()), Arc::new(Wakes::default()));
    let (panics, counts) = (Waker::from(bomb.clone()), Waker::from(wakes.clone()));
    let mut first = Box::pin(arena.allocate_async());
    let mut second = Box::pin(arena.allocate_async());
    assert!(poll(&mut first, &panics).is_pending());
    assert!(poll(&mut second, &counts).is_pending());
    let [one, other] = held;
    drop_with_panic(one);
    drop(other);
    assert_eq!((bomb.0.load(Ordering::SeqCst), wakes.count()), (1, 1));
    let Poll::Ready(buffer) = poll(&mut second, &counts) else { panic!("it was woken") };
    // The slot was granted: only the call failed.
    let Poll::Ready(granted) = poll(&mut first, &panics) else { panic!("its slot is there") };
    drop((buffer, granted));
    // A wait that is dropped with its slot hands it on, past the panic of the next one.
    let held = [arena.allocate().unwrap(), arena.allocate().unwrap()];
    let mut leaves = Box::pin(arena.allocate_async());
    let mut first = Box::pin(arena.allocate_async());
    assert!(poll(&mut leaves, &counts).is_pending());
    assert!(poll(&mut first, &panics).is_pending());
    let [one, other] = held;
    drop(one);
    drop_with_panic(leaves);
    assert!(poll(&mut first, &panics).is_ready());
    drop((first, other));
    assert_all_free(&arena);
}

/// One free of a large block serves many: each is called, also behind one that panics.
#[test]
fn every_waiter_of_one_free_is_woken() {
    let geometry = BuddyGeometry::exact(nz(4096), nz(1024)).unwrap();
    let arena = BuddyArena::builder(geometry).build_async().unwrap();
    let whole = arena.allocate(nz(4096)).unwrap();
    let (bomb, wakes) = (Arc::new(Bomb::default()), Arc::new(Wakes::default()));
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(arena.allocate_async(nz(1024)))).collect();
    for (number, wait) in waiting.iter_mut().enumerate() {
        let waker = match number {
            0 | 2 => Waker::from(bomb.clone()),
            _ => Waker::from(wakes.clone()),
        };
        assert!(poll(wait, &waker).is_pending());
    }
    drop_with_panic(whole);
    assert_eq!((bomb.0.load(Ordering::SeqCst), wakes.count()), (2, 2));
    for wait in &mut waiting {
        assert!(poll(wait, Waker::noop()).is_ready());
    }
    drop(waiting);
    assert_all_free(&arena);
}

#[test]
fn a_free_succeeds_whatever_its_wake_policy_does() {
    struct Panics(NotifyWaiters, Arc<AtomicUsize>);

    impl Waiter for Panics {
        type Registration = NotifyRegistration;

        fn register(&self) -> NotifyRegistration {
            Waiter::register(&self.0)
        }

        fn wake(&self) {
            let left =
                self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            assert!(left.is_err(), "a policy panics, as this test wants");
        }
    }

    let panics = Arc::new(AtomicUsize::new(3));
    let policy = Panics(NotifyWaiters::new(1), panics.clone());
    let arena = FixedArena::with_sizes(1, 64).build_async_with(policy).unwrap();
    for _ in 0..3 {
        let buffer = arena.allocate().unwrap();
        drop_with_panic(buffer);
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
    assert_all_free(&arena);
}

/// A waker whose clone claims and frees in the arena that it waits for. No lock is held then.
#[test]
fn a_waker_that_uses_the_arena_while_it_is_cloned_meets_no_lock() {
    static CLONES: AtomicUsize = AtomicUsize::new(0);
    const VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| {}, |_| {}, |_| {});

    fn clone(arena: *const ()) -> RawWaker {
        CLONES.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the test's arena, which outlives the wakers.
        let arena = unsafe { &*arena.cast::<FixedArena>() };
        assert!(arena.allocate().is_err(), "all is held");
        // Another waiter comes and goes, which locks the queue.
        assert!(arena.allocate_timeout(std::time::Duration::ZERO).is_err());
        RawWaker::new(std::ptr::from_ref(arena).cast(), &VTABLE)
    }

    let arena = FixedArena::with_sizes(1, 64).build_async().unwrap();
    let held = arena.allocate().unwrap();
    let plain: &FixedArena = &arena;
    let waker =
        // SAFETY: the functions of the table do what a waker asks for; cloned on this thread only.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(plain).cast(), &VTABLE)) };
    let mut wait = pin!(arena.allocate_async());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(CLONES.load(Ordering::SeqCst), 1);
    drop(held);
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}
