//! What a wake policy of the user's is made of, and how a claim waits under one.

use std::pin::{Pin, pin};
use std::task::Poll;

use crate::sync::{Ordering, fence};

/// A wake policy for a fixed arena: who is told when a slot comes back.
///
/// An arena built with one ([`build_async_with`](crate::FixedArenaBuilder::build_async_with)) calls
/// [`wake`](Self::wake) after every free that puts a slot back, from the thread that frees; order
/// and fairness are the policy's affair. Threads in
/// [`allocate_timeout`](crate::FixedArena::allocate_timeout) and starved rings wait in the arena's
/// own queue, and are served first. Without a policy of your own use
/// [`build_async`](crate::FixedArenaBuilder::build_async).
///
/// ```
/// use std::pin::Pin;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use uring_arena::{NotifyWaiters, Waiter};
///
/// /// Counts the frees, and leaves the waking to another policy.
/// #[derive(Clone)]
/// struct Counted(NotifyWaiters, Arc<AtomicUsize>);
///
/// impl Waiter for Counted {
///     type Registration = <NotifyWaiters as Waiter>::Registration;
///
///     fn register(&self) -> Self::Registration {
///         Waiter::register(&self.0)
///     }
///
///     fn wake(&self) {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         Waiter::wake(&self.0);
///     }
/// }
/// # use std::num::NonZeroUsize;
/// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
/// # let policy = Counted(NotifyWaiters::new(1), Arc::default());
/// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build_async_with(policy.clone()).unwrap();
/// # drop(arena.allocate());
/// # assert_eq!(policy.1.load(Ordering::Relaxed), 1);
/// ```
pub trait Waiter: Send + Sync + 'static {
    /// The wait of one claim.
    type Registration: WaitRegistration;

    /// Begins a wait: the claim looks once more after this, and then awaits the registration.
    fn register(&self) -> Self::Registration;

    /// A slot came back: wakes one waiter.
    fn wake(&self);
}

/// A wake policy for a buddy arena: who is told when a block comes back.
///
/// Orders are logarithms: a block of order `k` is `2^k` smallest blocks long. Otherwise as
/// [`Waiter`].
pub trait BuddyWaiter: Send + Sync + 'static {
    /// The wait of one claim.
    type Registration: WaitRegistration;

    /// Begins a wait for a block of `order`.
    fn register(&self, order: usize) -> Self::Registration;

    /// A block of `freed_order` came back: wakes those that it may serve. It may have merged into a
    /// larger one.
    fn wake(&self, freed_order: usize);
}

/// The wait of one claim under a [`Waiter`] or [`BuddyWaiter`].
///
/// Ready when it is worth looking again; a wake that is not needed (the registration is dropped
/// after it, unpolled) goes on to another waiter, by the implementation.
pub trait WaitRegistration: Future<Output = ()> {
    /// From here on a wake counts; the claim looks once more after this.
    fn prepare(self: Pin<&mut Self>);

    /// That look found something: the registration will be dropped, and wants no wake.
    fn revoke(self: Pin<&mut Self>);
}

/// Claims by `look`, waiting under a policy of the user's whenever there is nothing.
pub(super) async fn wait_under<R, T>(register: impl Fn() -> R, look: impl Fn() -> Option<T>) -> T
where
    R: WaitRegistration,
{
    loop {
        let mut registration = pin!(register());
        registration.as_mut().prepare();
        let found = std::future::poll_fn(|context| {
            // The registration before the look, as the free comes before the wake
            // (`lease::waiters`): of the two at least one sees the other.
            fence(Ordering::SeqCst);
            if let Some(found) = look() {
                return Poll::Ready(Some(found));
            }
            if registration.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            // Some policies take note of a waiter only when it is polled: so look after that, too.
            fence(Ordering::SeqCst);
            look().map_or(Poll::Pending, |found| Poll::Ready(Some(found)))
        });
        if let Some(found) = found.await {
            registration.as_mut().revoke();
            return found;
        }
        if let Some(found) = look() {
            return found;
        }
    }
}
