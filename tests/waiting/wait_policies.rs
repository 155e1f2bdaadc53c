//! Wake policies of a user, with the contracts of arena-alligator's traits.

use std::future::Future;
use std::panic::catch_unwind;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::support::{Panics, TIMEOUT, Wakes, nz};
use uring_arena::{
    AsyncBuddyArena, AsyncFixedArena, BuddyArena, BuddyGeometry, BuddyWaiter, Buffer, FixedArena,
    NotifyRegistration, NotifyWaiters, WaitRegistration, Waiter,
};

fn build<W: Waiter>(slots: usize, policy: W) -> AsyncFixedArena<W> {
    FixedArena::with_slot_capacity(nz(slots), nz(64)).build_async_with(policy).unwrap()
}

fn poll<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A policy that wakes the last waiter first, and knows a waiter only once it is polled.
#[derive(Clone, Default)]
struct Stack {
    wakers: Arc<Mutex<Vec<Waker>>>,
    wakes: Arc<AtomicUsize>,
}

struct StackRegistration {
    stack: Stack,
    is_polled: bool,
}

impl Waiter for Stack {
    type Registration = StackRegistration;

    fn register(&self) -> StackRegistration {
        StackRegistration { stack: self.clone(), is_polled: false }
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        let waker = self.wakers.lock().unwrap().pop();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl WaitRegistration for StackRegistration {
    fn prepare(self: Pin<&mut Self>) {}

    fn revoke(self: Pin<&mut Self>) {}
}

impl Future for StackRegistration {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.is_polled, true) {
            return Poll::Ready(());
        }
        self.stack.wakers.lock().unwrap().push(context.waker().clone());
        Poll::Pending
    }
}

#[test]
fn a_policy_is_told_of_every_free() {
    let stack = Stack::default();
    let arena = build(1, stack.clone());
    for _ in 0..10 {
        drop(arena.allocate().unwrap());
    }
    assert_eq!(stack.wakes.load(Ordering::SeqCst), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_registers_late_loses_no_wake() {
    let arena = build(1, Stack::default());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let arena = arena.clone();
            tokio::spawn(async move {
                for _ in 0..2000 {
                    drop(arena.allocate_async().await);
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
    let metrics = arena.metrics();
    assert_eq!(
        (metrics.allocations_ok, metrics.frees, metrics.allocations_failed),
        (16_000, 16_000, 0)
    );
}

#[test]
fn a_thread_waits_under_any_policy() {
    let arena = build(1, Stack::default());
    let held = arena.allocate().unwrap();
    let other = arena.clone();
    let thread =
        std::thread::spawn(move || other.allocate_timeout(Duration::from_secs(60)).is_ok());
    std::thread::sleep(Duration::from_millis(5));
    drop(held);
    assert!(thread.join().unwrap());
}

#[test]
fn the_ordinary_policy_wakes_those_registered_directly() {
    let policy = NotifyWaiters::new(1);
    let arena = build(1, policy.clone());
    let held = arena.allocate().unwrap();
    let mut registration = pin!(Waiter::register(&policy));
    registration.as_mut().prepare();
    assert!(poll(&mut registration).is_pending());
    drop(held);
    assert!(poll(&mut registration).is_ready());
}

#[test]
fn the_ordinary_policy_wakes_for_every_arena_that_has_it() {
    let policy = NotifyWaiters::new(1);
    drop(build(1, policy.clone()));
    let before = build(1, policy.clone());
    let mut registration = pin!(Waiter::register(&policy));
    registration.as_mut().prepare();
    // From the first registration on, also an arena that is built later calls the policy.
    for arena in [before, build(1, policy.clone())] {
        assert!(poll(&mut registration).is_pending());
        drop(arena.allocate().unwrap());
        assert!(poll(&mut registration).is_ready());
    }
}

#[test]
fn a_registration_dropped_after_its_wake_passes_it_on() {
    let policy = NotifyWaiters::new(1);
    let mut first = Box::pin(Waiter::register(&policy));
    let mut second = pin!(Waiter::register(&policy));
    first.as_mut().prepare();
    second.as_mut().prepare();
    Waiter::wake(&policy);
    drop(first);
    assert!(poll(&mut second).is_ready());
    // No waiter was left for this wake, and it is not kept for a later one.
    Waiter::wake(&policy);
    let mut late = pin!(Waiter::register(&policy));
    late.as_mut().prepare();
    assert!(poll(&mut late).is_pending());
}

#[test]
fn a_block_wakes_as_many_as_fit() {
    let policy = NotifyWaiters::new(6);
    let mut small: Vec<_> = (0..12).map(|_| Box::pin(BuddyWaiter::register(&policy, 1))).collect();
    let mut large = pin!(BuddyWaiter::register(&policy, 5));
    small.iter_mut().for_each(|registration| registration.as_mut().prepare());
    large.as_mut().prepare();
    BuddyWaiter::wake(&policy, 4);
    let woken = small
        .iter_mut()
        .filter_map(|wait| poll(&mut wait.as_mut()).is_ready().then_some(()))
        .count();
    assert_eq!(woken, 8);
    assert!(poll(&mut large).is_ready(), "the block may have merged into a larger one");
}

/// A policy that counts what it is told, and leaves the waking to the ordinary one.
#[derive(Clone)]
struct Counted(NotifyWaiters, Arc<AtomicUsize>);

impl Counted {
    fn new(orders: usize) -> Counted {
        Counted(NotifyWaiters::new(orders), Arc::default())
    }

    fn calls(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl BuddyWaiter for Counted {
    type Registration = NotifyRegistration;

    fn register(&self, order: usize) -> NotifyRegistration {
        BuddyWaiter::register(&self.0, order)
    }

    fn wake(&self, freed_order: usize) {
        self.1.fetch_add(1, Ordering::SeqCst);
        BuddyWaiter::wake(&self.0, freed_order);
    }
}

/// Builds an arena of `units` smallest blocks of 64 bytes, under `policy`.
fn blocks(units: usize, policy: &Counted) -> AsyncBuddyArena<Counted> {
    let geometry = BuddyGeometry::exact(nz(64 * units), nz(64)).unwrap();
    BuddyArena::builder(geometry).build_async_with(policy.clone()).unwrap()
}

/// A block of four units serves a thread that wants one of them. The task that waits under the
/// policy gets one of the others.
#[test]
fn a_policy_hears_of_what_is_left_of_a_block_that_served_a_thread() {
    let policy = Counted::new(3);
    let arena = blocks(4, &policy);
    let whole = arena.allocate(nz(256)).unwrap();
    let woken = Arc::new(Wakes::default());
    let mut waiting = pin!(arena.allocate_async(nz(64)));
    let waker = Waker::from(woken.clone());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let thread = {
        let arena = arena.clone();
        std::thread::spawn(move || arena.allocate_timeout(nz(64), TIMEOUT).unwrap())
    };
    // Time for the thread to wait. If it comes late the test shows less, and holds.
    std::thread::sleep(Duration::from_millis(200));
    drop(whole);
    let served = thread.join().unwrap();
    assert_eq!((policy.calls(), woken.count()), (1, 1));
    assert!(poll(&mut waiting).is_ready());
    drop(served);
}

/// Fills `units` blocks, and lets a thread wait for half of them until the half around the first
/// one is reserved for it. Returns the blocks by place, the first one freed.
fn reserve_half(
    arena: &AsyncBuddyArena<Counted>,
    units: usize,
    wait: Duration,
) -> (Vec<Option<Buffer>>, std::thread::JoinHandle<bool>) {
    let mut blocks: Vec<_> = (0..units).map(|_| arena.allocate(nz(64)).ok()).collect();
    blocks.sort_by_key(|block| block.as_ref().unwrap().slot_index());
    let large = {
        let (arena, bytes) = (arena.clone(), nz(64 * units / 2));
        std::thread::spawn(move || arena.allocate_timeout(bytes, wait).is_ok())
    };
    let deadline = Instant::now() + TIMEOUT;
    loop {
        drop(blocks[0].take());
        blocks[0] = arena.allocate(nz(64)).ok();
        if blocks[0].is_none() {
            return (blocks, large);
        }
        assert!(Instant::now() < deadline, "nothing is reserved");
        std::thread::yield_now();
    }
}

/// Memory that was reserved for a thread is free when its wait ends.
#[test]
fn a_policy_hears_of_a_reservation_that_is_given_up() {
    let policy = Counted::new(4);
    let arena = blocks(8, &policy);
    let (mut held, large) = reserve_half(&arena, 8, Duration::from_millis(1500));
    held[1..3].fill_with(|| None);
    let woken: Vec<_> = (0..3).map(|_| Arc::new(Wakes::default())).collect();
    let mut waiting: Vec<_> = woken
        .iter()
        .map(|woken| {
            let mut claim = Box::pin(arena.allocate_async(nz(64)));
            let waker = Waker::from(woken.clone());
            let polled = claim.as_mut().poll(&mut Context::from_waker(&waker));
            // Time is over already: on a machine that stands still the test shows less.
            (polled.is_ready(), claim)
        })
        .collect();
    assert!(!large.join().unwrap(), "one block of each half stays");
    for ((is_served, claim), woken) in waiting.iter_mut().zip(&woken) {
        assert!(*is_served || woken.count() > 0, "three blocks are free, and nobody was told");
        assert!(*is_served || poll(&mut claim.as_mut()).is_ready());
    }
    drop(waiting);
    drop(held);
    assert_eq!(arena.metrics().bytes_live, 0);
}

/// Under a policy nobody knows who waits for a small block. So not all that is freed in the range
/// of a large one is withheld.
#[test]
fn a_large_wait_does_not_starve_those_who_wait_under_a_policy() {
    let policy = Counted::new(7);
    let arena = blocks(64, &policy);
    let (mut held, large) = reserve_half(&arena, 64, Duration::from_secs(600));
    let mut waiting = pin!(arena.allocate_async(nz(64)));
    assert!(poll(&mut waiting).is_pending());
    let calls = policy.calls();
    for (frees, block) in held[1..18].iter_mut().enumerate() {
        assert_eq!(policy.calls(), calls, "after {frees} frees");
        drop(block.take());
        if policy.calls() > calls {
            break;
        }
    }
    let served = match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(served) => served.unwrap(),
        Poll::Pending => panic!("17 frees served nobody"),
    };
    drop((served, held));
    assert!(large.join().unwrap(), "everything is free");
}

/// A wake may panic: the other waiters of a policy are woken all the same.
#[test]
fn a_panic_of_one_waker_loses_no_wake_of_a_policy() {
    let policy = NotifyWaiters::new(1);
    let woken = Arc::new(Wakes::default());
    let wakers = [Waker::from(Arc::new(Panics)), Waker::from(woken.clone())];
    let mut registrations: Vec<_> =
        wakers.iter().map(|_| Box::pin(BuddyWaiter::register(&policy, 0))).collect();
    for (registration, waker) in registrations.iter_mut().zip(&wakers) {
        registration.as_mut().prepare();
        assert!(registration.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    let died = catch_unwind(|| BuddyWaiter::wake(&policy, 1));
    assert!(died.is_err());
    assert_eq!(woken.count(), 1);
    assert!(registrations.iter_mut().all(|it| poll(&mut it.as_mut()).is_ready()));
}
