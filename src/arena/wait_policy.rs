//! The wake policies: the traits of the user's, and the one that comes with the crate.

use std::any::Any;
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::lease::{Handle, WeakHandle};
use crate::sync::{Arc, Mutex, Ordering, fence};
use crate::wait::{Panicked, Polled, TicketQueue, WakeList};

/// A wake policy for a fixed arena: the choice of the waiter to wake when a slot is freed.
///
/// An arena built with one ([`build_async_with`](crate::FixedArenaBuilder::build_async_with)) calls
/// [`wake`](Self::wake) after every free that leaves memory for others, on the thread that frees.
/// Order and fairness are up to the policy. Threads in
/// [`allocate_timeout`](crate::FixedArena::allocate_timeout) and starved rings wait in the arena's
/// own queue, and are served first. A slot that is granted to them calls no policy. Without a
/// policy of your own use
/// [`build_async`](crate::FixedArenaBuilder::build_async).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use uring_arena::{FixedArena, NotifyWaiters, Waiter};
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
///
/// let policy = Counted(NotifyWaiters::new(1), Arc::default());
/// let arena = FixedArena::with_sizes(1, 64).build_async_with(policy.clone())?;
/// drop(arena.allocate());
/// assert_eq!(policy.1.load(Ordering::Relaxed), 1);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
pub trait Waiter: Send + Sync + 'static {
    /// The wait of one claim.
    type Registration: WaitRegistration;

    /// Begins a wait. The claim tries once more after this, and then awaits the registration.
    fn register(&self) -> Self::Registration;

    /// Wakes one waiter, because a slot was freed.
    fn wake(&self);
}

/// A wake policy for a buddy arena: the choice of the waiters to wake when a block is freed.
///
/// Orders are logarithms: a block of order `k` is `2^k` smallest blocks long. Everything else is as
/// for [`Waiter`].
///
/// ```
/// use uring_arena::{BuddyArena, BuddyWaiter, NotifyRegistration, NotifyWaiters};
///
/// /// Wakes all, and lets them compete.
/// struct WakeAll(NotifyWaiters);
///
/// impl BuddyWaiter for WakeAll {
///     type Registration = NotifyRegistration;
///
///     fn register(&self, order: usize) -> NotifyRegistration {
///         BuddyWaiter::register(&self.0, order)
///     }
///
///     fn wake(&self, _freed_order: usize) {
///         BuddyWaiter::wake(&self.0, 63);
///     }
/// }
///
/// let policy = WakeAll(NotifyWaiters::new(7));
/// let arena = BuddyArena::with_sizes(65536, 1024).build_async_with(policy)?;
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
pub trait BuddyWaiter: Send + Sync + 'static {
    /// The wait of one claim.
    type Registration: WaitRegistration;

    /// Begins a wait for a block of `order`.
    fn register(&self, order: usize) -> Self::Registration;

    /// Wakes the waiters that a freed block of `freed_order` may serve.
    ///
    /// The block may have merged into a larger one.
    fn wake(&self, freed_order: usize);
}

/// The wait of one claim under a [`Waiter`] or [`BuddyWaiter`].
///
/// The future is ready when it is worth trying again. A registration that is dropped after its
/// wake, unpolled, hands the wake on to another waiter: that is the implementation's duty.
pub trait WaitRegistration: Future<Output = ()> {
    /// Makes wakes count from here on. The claim tries once more after this.
    fn prepare(self: Pin<&mut Self>);

    /// Ends the wait because that try found something. The registration is dropped next, and wants
    /// no wake.
    fn revoke(self: Pin<&mut Self>);
}

/// Claims by `claim`, waiting under a policy of the user's whenever there is nothing.
pub(super) async fn wait_under<R, T>(register: impl Fn() -> R, claim: impl Fn() -> Option<T>) -> T
where
    R: WaitRegistration,
{
    loop {
        let mut registration = pin!(register());
        registration.as_mut().prepare();
        let found = std::future::poll_fn(|context| {
            // The registration before the claim, as the free comes before the wake: of the two at
            // least one sees the other.
            fence(Ordering::SeqCst);
            if let Some(found) = claim() {
                return Poll::Ready(Some(found));
            }
            if registration.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            // Some policies take note of a waiter only when it is polled: so claim after that, too.
            fence(Ordering::SeqCst);
            claim().map_or(Poll::Pending, |found| Poll::Ready(Some(found)))
        });
        if let Some(found) = found.await {
            registration.as_mut().revoke();
            return found;
        }
        if let Some(found) = claim() {
            return found;
        }
    }
}

/// The ordinary wake policy: first come, first woken.
///
/// An arena built with it queues its claims itself, as an arena by
/// [`build_async`](crate::FixedArenaBuilder::build_async) does, and costs as much. Waiters that
/// register here directly are woken after those claims; from the first of them on, each free of the
/// arena calls the policy.
///
/// As a policy of its own, inside another one say, it wakes the waiter that registered first. After
/// a free of order `k` it wakes as many waiters of each smaller order as fit in the block. It also
/// wakes one of each larger order, which the block may have merged into. Clones share the waiters.
///
/// ```
/// use uring_arena::{NotifyWaiters, WaitRegistration, Waiter};
///
/// let waiters = NotifyWaiters::new(1);
/// let mut registration = std::pin::pin!(Waiter::register(&waiters));
/// registration.as_mut().prepare();
/// Waiter::wake(&waiters);
/// let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// assert!(registration.poll(&mut context).is_ready());
/// ```
#[derive(Clone)]
pub struct NotifyWaiters {
    shared: Arc<Shared>,
}

/// The waiters that the clones of a [`NotifyWaiters`] share.
struct Shared {
    listeners: Mutex<Listeners>,
    arenas: Mutex<Arenas>,
}

/// The waiters of each order that have registered directly.
struct Listeners {
    next_ticket: u64,
    orders: Box<[TicketQueue<()>]>,
}

/// The arenas that a policy was built into, until they call the policy on every free.
#[derive(Default)]
struct Arenas {
    silent: Vec<WeakHandle>,
    /// True once a waiter has registered directly.
    is_listening: bool,
}

impl NotifyWaiters {
    /// Makes a policy for `orders` orders of blocks.
    ///
    /// A fixed arena has 1, a buddy arena `max_order() + 1`.
    ///
    /// # Panics
    ///
    /// If `orders` is 0.
    ///
    /// ```
    /// use uring_arena::{FixedArena, NotifyWaiters};
    ///
    /// let arena = FixedArena::with_sizes(8, 64).build_async_with(NotifyWaiters::new(1))?;
    /// # drop(arena);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn new(orders: usize) -> NotifyWaiters {
        assert!(orders > 0, "a policy needs at least one order");
        let orders = (0..orders).map(|_| TicketQueue::new()).collect();
        let listeners = Mutex::new(Listeners { next_ticket: 0, orders });
        let arenas = Mutex::new(Arenas::default());
        NotifyWaiters { shared: Arc::new(Shared { listeners, arenas }) }
    }

    /// Returns the policy if it is this built-in one.
    pub(super) fn of_policy(policy: &dyn Any) -> Option<NotifyWaiters> {
        policy.downcast_ref::<NotifyWaiters>().cloned()
    }

    /// Makes the arena of `handle`, which was built with this policy, call it once a waiter
    /// registers directly.
    pub(super) fn attach(&self, handle: &Handle) {
        let mut arenas = self.shared.arenas.lock();
        if arenas.is_listening {
            handle.call_on_every_free();
            return;
        }
        arenas.silent.retain(|arena| arena.is_live());
        arenas.silent.push(handle.downgrade());
    }

    fn registration(&self, order: usize) -> NotifyRegistration {
        NotifyRegistration { waiters: self.clone(), order, ticket: None }
    }
}

impl Waiter for NotifyWaiters {
    type Registration = NotifyRegistration;

    fn register(&self) -> NotifyRegistration {
        self.registration(0)
    }

    fn wake(&self) {
        self.shared.notify(|listeners, wakes| listeners.notify(0, 1, wakes));
    }
}

impl BuddyWaiter for NotifyWaiters {
    type Registration = NotifyRegistration;

    fn register(&self, order: usize) -> NotifyRegistration {
        self.registration(order)
    }

    fn wake(&self, freed_order: usize) {
        self.shared.notify(|listeners, wakes| {
            for order in 0..listeners.orders.len() {
                let fit = 1usize << freed_order.saturating_sub(order).min(usize::BITS as usize - 1);
                listeners.notify(order, fit, wakes);
            }
        });
    }
}

impl fmt::Debug for NotifyWaiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyWaiters")
            .field("orders", &self.shared.listeners.lock().orders.len())
            .finish_non_exhaustive()
    }
}

impl Listeners {
    /// Returns the waiters of an order; orders beyond the last one wait with it.
    fn of_order(&mut self, order: usize) -> &mut TicketQueue<()> {
        let last = self.orders.len() - 1;
        &mut self.orders[order.min(last)]
    }

    /// Wakes up to `count` waiters of an order, the oldest first.
    fn notify(&mut self, order: usize, count: usize, wakes: &mut WakeList) {
        let queue = self.of_order(order);
        for _ in 0..count {
            if queue.first().is_none() {
                return;
            }
            wakes.push_woken(queue.grant(()));
        }
    }
}

impl Shared {
    /// Changes the listeners, and calls the wakers outside of the lock: they may run anything.
    fn notify(&self, change: impl FnOnce(&mut Listeners, &mut WakeList)) {
        let (mut wakes, mut panicked) = (WakeList::default(), Panicked::default());
        change(&mut self.listeners.lock(), &mut wakes);
        wakes.run(&mut panicked);
        panicked.resume();
    }

    /// Begins to listen for wakes of `order`. Returns the ticket of the listener.
    fn listen(&self, order: usize) -> u64 {
        let mut listeners = self.listeners.lock();
        let ticket = listeners.next_ticket;
        listeners.next_ticket += 1;
        listeners.of_order(order).join(ticket);
        drop(listeners);
        let mut arenas = self.arenas.lock();
        arenas.is_listening = true;
        let handles: Vec<Handle> = std::mem::take(&mut arenas.silent)
            .into_iter()
            .filter_map(WeakHandle::upgrade)
            .collect();
        // Under the lock: a registration that finds no silent arena relies on their calls.
        handles.iter().for_each(Handle::call_on_every_free);
        drop(arenas);
        // Outside of the lock: the last handle of an arena gives its memory back.
        drop(handles);
        ticket
    }

    /// Tells whether a listener was woken, or keeps `waker` to be called when it is.
    fn poll(&self, order: usize, ticket: u64, waker: &Waker) -> Poll<()> {
        let polled = self.listeners.lock().of_order(order).poll(ticket, waker);
        match polled {
            Polled::Granted(()) => Poll::Ready(()),
            Polled::Waits => Poll::Pending,
            Polled::NeedsWaker => {
                // Cloned, and dropped, outside of the lock: a waker may run anything.
                let waker = waker.clone();
                let mut listeners = self.listeners.lock();
                let (polled, unneeded) = listeners.of_order(order).poll_with(ticket, waker);
                drop(listeners);
                let (mut wakes, mut panicked) = (WakeList::default(), Panicked::default());
                wakes.push_unneeded(unneeded);
                wakes.run(&mut panicked);
                if polled.is_ready() && panicked.is_any() {
                    // The caller gets the panic, and the next one the wake.
                    self.notify(|listeners, wakes| listeners.notify(order, 1, wakes));
                }
                panicked.resume();
                polled
            }
        }
    }

    /// Ends a listener. A wake that it did not use goes to the next one.
    fn leave(&self, order: usize, ticket: u64) {
        self.notify(|listeners, wakes| {
            let (woken, waker) = listeners.of_order(order).leave(ticket);
            wakes.push_unneeded(waker);
            if woken.is_some() {
                listeners.notify(order, 1, wakes);
            }
        });
    }
}

/// The wait of one claim under [`NotifyWaiters`].
///
/// A registration that is dropped with a wake that it did not use passes the wake on.
#[derive(Debug)]
pub struct NotifyRegistration {
    waiters: NotifyWaiters,
    order: usize,
    /// The ticket of the listener, while there is one.
    ticket: Option<u64>,
}

impl NotifyRegistration {
    fn listen(&mut self) -> u64 {
        *self.ticket.get_or_insert_with(|| self.waiters.shared.listen(self.order))
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.waiters.shared.leave(self.order, ticket);
        }
    }
}

impl WaitRegistration for NotifyRegistration {
    fn prepare(mut self: Pin<&mut Self>) {
        self.listen();
    }

    fn revoke(mut self: Pin<&mut Self>) {
        self.leave();
    }
}

impl Future for NotifyRegistration {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ticket = self.listen();
        let woken = self.waiters.shared.poll(self.order, ticket, context.waker());
        if woken.is_ready() {
            // A listener is done after its wake; a further poll waits anew.
            self.ticket = None;
        }
        woken
    }
}

impl Drop for NotifyRegistration {
    fn drop(&mut self) {
        self.leave();
    }
}
