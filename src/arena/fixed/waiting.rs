//! The fixed arena whose claims can wait.

use std::fmt;
use std::ops::Deref;

use super::arena::FixedArena;
use super::builder::FixedArenaBuilder;
use crate::arena::wait_policy::{NotifyWaiters, Waiter, wait_under};
use crate::buffer::Buffer;
use crate::lease::{Place, WaitElsewhere};
use crate::region::BuildError;
use crate::sync::Arc;
use crate::wait::OnFree;

/// A [`FixedArena`] whose claims can wait, on any executor.
///
/// Everything else is the plain arena's, through `Deref`. Claims that do not wait
/// ([`FixedArena::allocate`]) mix freely with claims that do.
///
/// All waiters of an arena are served in order of arrival: tasks here, threads in
/// [`FixedArena::allocate_timeout`], starved rings.
///
/// * A slot that is freed while there are waiters is granted to the first of them, and newcomers do
///   not get it. So a waiter with `n` before it is served by the `n + 1`-th free.
/// * A wait that is dropped, also after its wake, hands the slot on to the next waiter.
/// * A woken task that is neither polled nor dropped keeps its slot from everybody.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let arena = FixedArena::with_sizes(1, 64).build_async()?;
/// # futures::executor::block_on(async {
/// let mut first = arena.allocate_async().await;
/// first.put_slice(b"hello");
/// let waiting = arena.allocate_async();
/// // The slot is free when the last of its bytes is dropped, on whatever thread that is.
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
    /// Builds an arena whose claims can wait.
    ///
    /// The pages are present as by [`build`](Self::build). The example of [`AsyncFixedArena`] shows
    /// it.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async(self) -> Result<AsyncFixedArena, BuildError> {
        Ok(AsyncFixedArena { arena: self.build()?, policy: None })
    }

    /// Builds an arena whose claims wait under a wake policy of your own.
    ///
    /// Each free calls the policy, so frees cost more than those of
    /// [`build_async`](Self::build_async). [`NotifyWaiters`] costs nothing until a waiter registers
    /// with it directly. The example of [`Waiter`] shows it.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_async_with<W: Waiter>(
        mut self,
        waiters: W,
    ) -> Result<AsyncFixedArena<W>, BuildError> {
        let policy = Arc::new(waiters);
        let callback = policy.clone();
        let built_in = NotifyWaiters::of_policy(&*policy);
        let call = Box::new(move |_| callback.wake());
        self.options.on_free = Some(OnFree { call, is_on_demand: built_in.is_some() });
        let arena = self.build()?;
        if let Some(built_in) = &built_in {
            built_in.attach(arena.handle());
        }
        Ok(AsyncFixedArena { arena, policy: built_in.is_none().then_some(policy) })
    }
}

impl<W: Waiter> AsyncFixedArena<W> {
    /// Claims a slot, and waits for one if none is free.
    ///
    /// Dropping the future ends the wait. A claim that finds a slot neither queues nor touches the
    /// heap. Waiting does not count as a failed allocation.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let arena = uring_arena::FixedArena::with_sizes(1, 64).build_async()?;
    /// let buffer = arena.allocate_async().await;
    /// assert_eq!(buffer.capacity(), 64);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// # }).unwrap();
    /// ```
    #[inline]
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_async(&self) -> impl Future<Output = Buffer> + '_ {
        let place = Place::here();
        async move {
            match self.arena.try_claim(place) {
                Some(buffer) => buffer,
                None => self.wait(place).await,
            }
        }
    }

    #[cold]
    async fn wait(&self, place: Place) -> Buffer {
        match &self.policy {
            None => self.arena.claim_in_order(place).await,
            Some(policy) => {
                let _waits = WaitElsewhere::begin(self.arena.handle());
                wait_under(|| policy.register(), || self.arena.claim(place)).await
            }
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

impl<W> From<AsyncFixedArena<W>> for FixedArena {
    /// Gives the plain arena, for functions that take one by value.
    fn from(arena: AsyncFixedArena<W>) -> FixedArena {
        arena.arena
    }
}

impl<W> fmt::Debug for AsyncFixedArena<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFixedArena").field(&self.arena).finish()
    }
}
