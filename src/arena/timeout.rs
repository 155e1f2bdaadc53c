//! Waiting claims of threads that have no executor.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::{BuddyArena, FixedArena};
use crate::buffer::Buffer;
use crate::error::AllocError;
use crate::lease::WaitForSlot;

impl FixedArena {
    /// Claims a slot; if none is free, blocks this thread until one comes back or `timeout` has
    /// passed.
    ///
    /// Waiting threads, tasks and rings are served in order of arrival, and no newcomer takes a
    /// slot while one of them sleeps. A wait that ends in time does not count as a failed
    /// allocation.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot came back in time.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use std::time::Duration;
    /// # use uring_arena::{AllocError, FixedArena};
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let held = arena.allocate()?;
    /// assert_eq!(arena.allocate_timeout(Duration::from_millis(1)).unwrap_err(), AllocError::ArenaFull);
    /// let other = std::thread::spawn(move || drop(held));
    /// let buffer = arena.allocate_timeout(Duration::from_secs(10))?;
    /// # other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate_timeout(&self, timeout: Duration) -> Result<Buffer, AllocError> {
        if let Some(buffer) = self.claim() {
            return Ok(buffer);
        }
        // A timeout beyond the clock's range is none.
        let deadline = Instant::now().checked_add(timeout);
        let wait = WaitForSlot::join(self.handle(), 0);
        let found = self.claim().or_else(|| wait.wait(deadline).map(|lease| self.buffer_of(lease)));
        found.ok_or_else(|| self.refuse())
    }
}

impl BuddyArena {
    /// Claims the smallest block that holds `len` bytes; if none is free, blocks this thread until
    /// one is or `timeout` has passed.
    ///
    /// A wait that ends in time does not count as a failed allocation.
    ///
    /// # Errors
    ///
    /// [`AllocError::RequestTooLarge`], at once, if the arena could not serve `len` even if it were
    /// empty; [`AllocError::ArenaFull`] if no block was free in time.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use std::time::Duration;
    /// # use uring_arena::{AllocError, BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(4096), bytes(512))?).build()?;
    /// let day = Duration::from_secs(86_400);
    /// assert_eq!(arena.allocate_timeout(bytes(4097), day).unwrap_err(), AllocError::RequestTooLarge);
    /// let small = arena.allocate(bytes(1))?;
    /// let other = std::thread::spawn(move || drop(small));
    /// let whole = arena.allocate_timeout(bytes(4096), day)?;
    /// # other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate_timeout(
        &self,
        len: NonZeroUsize,
        timeout: Duration,
    ) -> Result<Buffer, AllocError> {
        let order = self.order_of(len).ok_or_else(|| self.refuse(AllocError::RequestTooLarge))?;
        if let Some(buffer) = self.claim(len, order) {
            return Ok(buffer);
        }
        let deadline = Instant::now().checked_add(timeout);
        let wait = WaitForSlot::join(self.handle(), order);
        let waited = || wait.wait(deadline).map(|lease| self.buffer_of(lease, len, order));
        self.claim(len, order).or_else(waited).ok_or_else(|| self.refuse(AllocError::ArenaFull))
    }
}
