//! The buddy arena whose claims can wait.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;

use super::arena::{BuddyArena, at_least_one};
use super::builder::BuddyArenaBuilder;
use crate::arena::builder::AllocError;
use crate::arena::wait_policy::{BuddyWaiter, NotifyWaiters, wait_under};
use crate::buffer::Buffer;
use crate::lease::{Place, WaitElsewhere, WaitForSlot};
use crate::region::BuildError;
use crate::sync::Arc;
use crate::wait::OnFree;

/// A [`BuddyArena`] whose claims can wait, on any executor.
///
/// Everything else is the plain arena's, through `Deref`. Claims that do not wait
/// ([`BuddyArena::allocate`]) mix freely with claims that do.
///
/// * A freed block serves, in order of arrival, every waiter that it can: many small ones, or a
///   larger one if it merged.
/// * A waiter that cannot be served yet does not stop those behind it.
/// * Small requests do not bypass a larger one for ever. After a few frees, memory that is freed in
///   one aligned range of its size is reserved for it, at most half of the arena.
/// * A larger request that cannot be served does not starve small ones: of the frees that could
///   serve a small waiter, at most one in a row is withheld from it.
/// * A request for the whole arena waits until nothing is in use.
/// * A wait that is dropped, also after its wake, hands its memory on.
///
/// ```
/// use uring_arena::{AllocError, BuddyArena};
///
/// let arena = BuddyArena::with_sizes(65536, 1024).build_async()?;
/// # futures::executor::block_on(async {
/// let whole = arena.allocate_bytes_async(65536).await?;
/// let waiting = arena.allocate_bytes_async(5000);
/// std::thread::spawn(move || drop(whole));
/// assert_eq!(waiting.await?.capacity(), 5000);
/// let refused = arena.allocate_bytes_async(65537).await;
/// assert_eq!(refused.unwrap_err(), AllocError::RequestTooLarge);
/// # Ok::<(), AllocError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncBuddyArena<W = NotifyWaiters> {
    arena: BuddyArena,
    /// The policy that claims wait under; `None` for the arena's own queue.
    policy: Option<Arc<W>>,
}

impl BuddyArenaBuilder {
    /// Builds an arena whose claims can wait.
    ///
    /// The pages are present as by [`build`](Self::build). The example of [`AsyncBuddyArena`] shows
    /// it.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async(self) -> Result<AsyncBuddyArena, BuildError> {
        Ok(AsyncBuddyArena { arena: self.build()?, policy: None })
    }

    /// Builds an arena whose claims wait under a wake policy of your own.
    ///
    /// Each free calls the policy, so frees cost more than those of
    /// [`build_async`](Self::build_async). [`NotifyWaiters`] costs nothing until a waiter registers
    /// with it directly. The example of [`BuddyWaiter`] shows it.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async_with<W: BuddyWaiter>(
        mut self,
        waiters: W,
    ) -> Result<AsyncBuddyArena<W>, BuildError> {
        let policy = Arc::new(waiters);
        let callback = policy.clone();
        let built_in = NotifyWaiters::of_policy(&*policy);
        let call = Box::new(move |order| callback.wake(order as usize));
        self.options.on_free = Some(OnFree { call, is_on_demand: built_in.is_some() });
        let arena = self.build()?;
        if let Some(built_in) = &built_in {
            built_in.attach(arena.handle());
        }
        Ok(AsyncBuddyArena { arena, policy: built_in.is_none().then_some(policy) })
    }
}

impl<W: BuddyWaiter> AsyncBuddyArena<W> {
    /// Claims the smallest block that holds `len` bytes, and waits for one if none is free.
    ///
    /// Dropping the future ends the wait. A claim that finds a block neither queues nor touches the
    /// heap. Waiting does not count as a failed allocation.
    ///
    /// # Errors
    ///
    /// [`AllocError::RequestTooLarge`], at once, if the arena could not serve `len` even if it were
    /// empty.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # let arena = uring_arena::BuddyArena::with_sizes(65536, 1024).build_async().unwrap();
    /// # futures::executor::block_on(async {
    /// let buffer = arena.allocate_async(NonZeroUsize::new(3000).unwrap()).await?;
    /// assert_eq!(buffer.capacity(), 3000);
    /// # Ok::<(), uring_arena::AllocError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_async(
        &self,
        len: NonZeroUsize,
    ) -> impl Future<Output = Result<Buffer, AllocError>> + '_ {
        let place = Place::here();
        async move {
            let Some(order) = self.arena.order_of(len) else {
                return Err(self.arena.refuse(AllocError::RequestTooLarge));
            };
            match self.arena.try_claim(len, order, place) {
                Some(buffer) => Ok(buffer),
                None => Ok(self.wait(len, order, place).await),
            }
        }
    }

    /// Claims a block, as [`allocate_async`](Self::allocate_async) does; a `len` of 0 counts as 1.
    ///
    /// The example of [`AsyncBuddyArena`] shows it.
    ///
    /// # Errors
    ///
    /// As for [`allocate_async`](Self::allocate_async).
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_bytes_async(
        &self,
        len: usize,
    ) -> impl Future<Output = Result<Buffer, AllocError>> + '_ {
        self.allocate_async(at_least_one(len))
    }

    #[cold]
    async fn wait(&self, len: NonZeroUsize, order: u32, place: Place) -> Buffer {
        let claim = || self.arena.claim(len, order, place);
        match &self.policy {
            None => self.wait_in_order(len, order, place).await,
            Some(policy) => {
                let _waits = WaitElsewhere::begin(self.arena.handle());
                wait_under(|| policy.register(order as usize), claim).await
            }
        }
    }

    /// Waits in the arena's own queue.
    async fn wait_in_order(&self, len: NonZeroUsize, order: u32, place: Place) -> Buffer {
        let lease = match WaitForSlot::claim_or_join(self.arena.handle(), order, place) {
            Ok(lease) => lease,
            Err(wait) => wait.await,
        };
        self.arena.buffer_of(lease, len, order)
    }
}

impl<W> Clone for AsyncBuddyArena<W> {
    fn clone(&self) -> AsyncBuddyArena<W> {
        AsyncBuddyArena { arena: self.arena.clone(), policy: self.policy.clone() }
    }
}

impl<W> Deref for AsyncBuddyArena<W> {
    type Target = BuddyArena;

    #[inline]
    fn deref(&self) -> &BuddyArena {
        &self.arena
    }
}

impl<W> From<AsyncBuddyArena<W>> for BuddyArena {
    /// Gives the plain arena, for functions that take one by value.
    fn from(arena: AsyncBuddyArena<W>) -> BuddyArena {
        arena.arena
    }
}

impl<W> fmt::Debug for AsyncBuddyArena<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncBuddyArena").field(&self.arena).finish()
    }
}
