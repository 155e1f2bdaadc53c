//! The wake policy that comes with the crate, for use on its own.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use event_listener::{Event, EventListener, IntoNotification};

use super::{BuddyWaiter, WaitRegistration, Waiter};
use crate::sync::Arc;

/// The ordinary wake policy: first come, first woken.
///
/// An arena built with it queues its claims itself, as one built by
/// [`build_async`](crate::FixedArenaBuilder::build_async) does: in order of arrival, and no
/// newcomer takes a slot while somebody sleeps. What is registered here directly is woken after
/// them.
///
/// As a policy of its own, inside another one say, it wakes the waiter that registered first; after
/// a block of order `k` came back, as many of each smaller order as fit in it, and one of each
/// larger, which it may have merged into. Clones share the waiters.
///
/// ```
/// use uring_arena::{NotifyWaiters, WaitRegistration, Waiter};
///
/// let waiters = NotifyWaiters::new(1);
/// let mut registration = std::pin::pin!(Waiter::register(&waiters));
/// registration.as_mut().prepare();
/// Waiter::wake(&waiters);
/// # struct Idle;
/// # impl std::task::Wake for Idle { fn wake(self: std::sync::Arc<Self>) {} }
/// # let waker = std::task::Waker::from(std::sync::Arc::new(Idle));
/// # let mut context = std::task::Context::from_waker(&waker);
/// assert!(registration.poll(&mut context).is_ready());
/// ```
#[derive(Clone)]
pub struct NotifyWaiters {
    orders: Arc<[Event]>,
}

impl NotifyWaiters {
    /// A policy for `orders` orders of blocks: 1 for a fixed arena, `max_order() + 1` for a buddy
    /// arena.
    ///
    /// # Panics
    ///
    /// If `orders` is 0.
    pub fn new(orders: usize) -> NotifyWaiters {
        assert!(orders > 0, "a policy needs at least one order");
        NotifyWaiters { orders: (0..orders).map(|_| Event::new()).collect() }
    }

    fn registration(&self, order: usize) -> NotifyRegistration {
        // Orders beyond what was said wait with the largest.
        let order = order.min(self.orders.len() - 1);
        NotifyRegistration { waiters: self.clone(), order, listener: None }
    }
}

impl Waiter for NotifyWaiters {
    type Registration = NotifyRegistration;

    fn register(&self) -> NotifyRegistration {
        self.registration(0)
    }

    fn wake(&self) {
        self.orders[0].notify(1.additional());
    }
}

impl BuddyWaiter for NotifyWaiters {
    type Registration = NotifyRegistration;

    fn register(&self, order: usize) -> NotifyRegistration {
        self.registration(order)
    }

    fn wake(&self, freed_order: usize) {
        for (order, event) in self.orders.iter().enumerate() {
            let fit = 1usize << freed_order.saturating_sub(order).min(usize::BITS as usize - 1);
            event.notify(fit.additional());
        }
    }
}

impl fmt::Debug for NotifyWaiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyWaiters").field("orders", &self.orders.len()).finish_non_exhaustive()
    }
}

/// The wait of one claim under [`NotifyWaiters`]. Dropped with a wake that it did not use, it
/// passes the wake on.
#[derive(Debug)]
pub struct NotifyRegistration {
    waiters: NotifyWaiters,
    order: usize,
    listener: Option<EventListener>,
}

impl NotifyRegistration {
    fn listener(&mut self) -> &mut EventListener {
        self.listener.get_or_insert_with(|| self.waiters.orders[self.order].listen())
    }
}

impl WaitRegistration for NotifyRegistration {
    fn prepare(mut self: Pin<&mut Self>) {
        self.listener();
    }

    fn revoke(mut self: Pin<&mut Self>) {
        self.listener = None;
    }
}

impl Future for NotifyRegistration {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let woken = Pin::new(self.listener()).poll(context);
        if woken.is_ready() {
            // A listener is done after its wake; a further poll waits anew.
            self.listener = None;
        }
        woken
    }
}
