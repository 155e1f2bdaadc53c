//! Wake policies of a user, with the contracts of arena-alligator's traits.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::nz;
use uring_arena::{
    AsyncFixedArena, BuddyWaiter, FixedArena, NotifyWaiters, WaitRegistration, Waiter,
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
