//! The fixed arena whose claims can wait.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use super::super::wait_policy::wait_under;
use super::super::{NotifyWaiters, Waiter};
use super::{FixedArena, FixedArenaBuilder};
use crate::buffer::Buffer;
use crate::error::BuildError;
use crate::sync::Arc;

/// A [`FixedArena`] whose claims can wait, on any executor.
///
/// Everything else is the plain arena's, through `Deref`; claims that do not wait
/// ([`FixedArena::allocate`]) mix freely with those that do.
///
/// Who waits is served in order of arrival: tasks here, threads in
/// [`FixedArena::allocate_timeout`], starved rings. A slot that comes back while somebody sleeps is
/// kept for the one that sleeps longest, and newcomers do not get it; so a waiter with `n` before
/// it is served by the `n + 1`-th slot that comes back. A wait that is dropped, also after its
/// wake, hands the slot on to the next. A woken task that is neither polled nor dropped keeps its
/// slot from everybody.
///
/// ```
/// use std::num::NonZeroUsize;
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build_async()?;
/// # futures::executor::block_on(async {
/// let mut first = arena.allocate_async().await;
/// first.put_slice(b"hello");
/// let waiting = arena.allocate_async();
/// // The slot comes back when the last of its bytes is gone, on whatever thread that is.
/// let sent = first.freeze();
/// std::thread::spawn(move || drop(sent));
/// let second = waiting.await;
/// # drop(second);
/// # });
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
pub struct AsyncFixedArena<W = NotifyWaiters> {
    arena: FixedArena,
    /// The policy that claims wait under; `None` for the arena's own queue.
    policy: Option<Arc<W>>,
}

impl FixedArenaBuilder {
    /// Builds an arena whose claims can wait; the pages are present as by [`build`](Self::build).
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async(self) -> Result<AsyncFixedArena, BuildError> {
        Ok(AsyncFixedArena { arena: self.build()?, policy: None })
    }

    /// Builds an arena whose claims wait under a wake policy of your own.
    ///
    /// Its frees cost more than those of [`build_async`](Self::build_async): each tells the policy.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async_with<W: Waiter>(
        mut self,
        waiters: W,
    ) -> Result<AsyncFixedArena<W>, BuildError> {
        let policy = Arc::new(waiters);
        let told = policy.clone();
        self.set_hook(Box::new(move |_| told.wake()));
        // The policy that comes with the crate is the arena's own queue.
        let is_ours = (&*policy as &dyn Any).is::<NotifyWaiters>();
        Ok(AsyncFixedArena { arena: self.build()?, policy: (!is_ours).then_some(policy) })
    }
}

impl<W: Waiter> AsyncFixedArena<W> {
    /// Claims a slot, and waits for one if none is free. Dropping the future ends the wait.
    ///
    /// A claim that finds a slot neither queues nor touches the heap. Waiting does not count as a
    /// failed allocation.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # futures::executor::block_on(async {
    /// let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build_async()?;
    /// let buffer = arena.allocate_async().await;
    /// assert_eq!(buffer.capacity(), 64);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    pub async fn allocate_async(&self) -> Buffer {
        match self.arena.claim() {
            Some(buffer) => buffer,
            None => self.wait().await,
        }
    }

    #[cold]
    async fn wait(&self) -> Buffer {
        match &self.policy {
            None => self.wait_in_order().await,
            Some(policy) => wait_under(|| policy.register(), || self.arena.claim()).await,
        }
    }

    /// Waits in the arena's own queue.
    async fn wait_in_order(&self) -> Buffer {
        let place = self.arena.handle().join_queue(0);
        match self.arena.claim() {
            Some(buffer) => buffer,
            None => self.arena.buffer_of(place.await),
        }
    }
}

impl<W> Clone for AsyncFixedArena<W> {
    fn clone(&self) -> AsyncFixedArena<W> {
        AsyncFixedArena { arena: self.arena.clone(), policy: self.policy.clone() }
    }
}

impl<W> Deref for AsyncFixedArena<W> {
    type Target = FixedArena;

    #[inline]
    fn deref(&self) -> &FixedArena {
        &self.arena
    }
}

impl<W> fmt::Debug for AsyncFixedArena<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFixedArena").field(&self.arena).finish()
    }
}
