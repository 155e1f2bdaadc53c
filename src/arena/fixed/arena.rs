//! The fixed arena: claims of equal slots.

use std::fmt;
use std::time::{Duration, Instant};

use crate::arena::builder::AllocError;
#[cfg(feature = "holders")]
use crate::arena::builder::keep_report;
use crate::buffer::Buffer;
use crate::lease::{Handle, Lease, Place, Trim, TrimReport, WaitForSlot};

/// An arena of equal slots; clones share the memory.
///
/// The index of a slot is also its registered-buffer index and its provided-buffer id. A claim and
/// a free are a handful of instructions and one uncontended atomic each, on any thread; N slots
/// serve exactly N claims. The memory lives until the last handle, buffer and byte is gone.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let arena = FixedArena::with_sizes(1024, 4096).alignment(4096).build()?;
/// let mut buffer = arena.allocate()?;
/// buffer.put_slice(b"hello");
/// let bytes = buffer.freeze();
/// drop(arena);
/// assert_eq!(bytes, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FixedArena {
    handle: Handle,
}

/// The place of a slice in an arena: see [`FixedArena::locate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The index of the slot that holds the first byte.
    pub slot_index: u32,
    /// The distance in bytes from the start of that slot to the first byte.
    pub offset: usize,
}

impl FixedArena {
    pub(super) fn from_handle(handle: Handle) -> FixedArena {
        FixedArena { handle }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Claims a slot; never waits for one.
    ///
    /// A refusal ends after at most three passes over the slots, however often others claim and
    /// free. Frees of other threads wait for the third.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if, at some instant during the call, no slot was free.
    ///
    /// ```
    /// use uring_arena::{AllocError, FixedArena};
    ///
    /// let arena = FixedArena::new(1, 64)?;
    /// let buffer = arena.allocate()?;
    /// assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
    /// drop(buffer);
    /// assert!(arena.allocate().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Always: a `Buffer` that comes back through memory is written in four words and read in two
    // halves, which the processor cannot forward. Out of line that costs more than the claim.
    #[inline(always)]
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate(&self) -> Result<Buffer, AllocError> {
        match self.claim(Place::here()) {
            Some(buffer) => Ok(buffer),
            None => Err(self.refuse()),
        }
    }

    /// Claims a slot. A refusal is exact, and counts as no failure.
    #[inline(always)] // see `allocate`
    pub(super) fn claim(&self, place: Place) -> Option<Buffer> {
        let (lease, start) = self.handle.claim_slot(place)?;
        Some(Buffer::new(lease, start, self.handle.slot_bytes))
    }

    /// Claims a slot, for a caller that waits if there is none: `None` proves nothing.
    #[inline]
    pub(crate) fn try_claim(&self, place: Place) -> Option<Buffer> {
        let (lease, start) = self.handle.try_claim_slot(place)?;
        Some(Buffer::new(lease, start, self.handle.slot_bytes))
    }

    /// Claims up to `count` slots in one go and hands each to `each`; returns their number.
    ///
    /// The number is less than `count` only if no further slot was free. Up to 32 neighbouring
    /// slots cost one atomic together, so this is the way to refill a ring.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::new(8, 64)?;
    /// let mut buffers = Vec::new();
    /// assert_eq!(arena.allocate_many(32, |buffer| buffers.push(buffer)), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_many(&self, count: usize, mut each: impl FnMut(Buffer)) -> usize {
        let (slot_bytes, place) = (self.handle.slot_bytes, Place::here());
        let mut claimed = self.handle.claim_slots(count, place, |lease, start, _| {
            each(Buffer::new(lease, start, slot_bytes));
        });
        while claimed < count
            && let Some(buffer) = self.claim(place)
        {
            each(buffer);
            claimed += 1;
        }
        claimed
    }

    /// Claims a slot, and blocks this thread for at most `timeout` until one comes back
    /// ([`Duration::MAX`]: without end). Signals do not end the wait.
    ///
    /// Waiting threads, tasks and rings are served in order of arrival, and no newcomer takes a
    /// slot while one of them waits. A wait that ends in time does not count as a failed
    /// allocation.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot came back in time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use uring_arena::{AllocError, FixedArena};
    ///
    /// let arena = FixedArena::new(1, 64)?;
    /// let held = arena.allocate()?;
    /// let refused = arena.allocate_timeout(Duration::from_millis(1));
    /// assert_eq!(refused.unwrap_err(), AllocError::ArenaFull);
    /// let other = std::thread::spawn(move || drop(held));
    /// let buffer = arena.allocate_timeout(Duration::from_secs(10))?;
    /// # other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_timeout(&self, timeout: Duration) -> Result<Buffer, AllocError> {
        let place = Place::here();
        if let Some(buffer) = self.try_claim(place) {
            return Ok(buffer);
        }
        // A timeout beyond the clock's range is none.
        let deadline = Instant::now().checked_add(timeout);
        let found = match WaitForSlot::claim_or_join(&self.handle, 0, place) {
            Ok(lease) => Some(lease),
            Err(wait) => wait.wait(deadline),
        };
        found.map(|lease| self.buffer_of(lease)).ok_or_else(|| self.refuse())
    }

    /// Claims a slot in order with all who wait in the arena's own queue.
    #[cfg(any(feature = "async-alloc", feature = "tokio"))]
    pub(crate) async fn claim_in_order(&self, place: Place) -> Buffer {
        let lease = match WaitForSlot::claim_or_join(&self.handle, 0, place) {
            Ok(lease) => lease,
            Err(wait) => wait.await,
        };
        self.buffer_of(lease)
    }

    /// Returns the buffer of a slot that the caller waited for.
    fn buffer_of(&self, lease: Lease) -> Buffer {
        let start = lease.slot_start();
        Buffer::new(lease, start, self.handle.slot_bytes)
    }

    #[cold]
    fn refuse(&self) -> AllocError {
        self.handle.waiters.record_refusal();
        #[cfg(feature = "holders")]
        keep_report(&self.handle);
        AllocError::ArenaFull
    }

    /// Gives the pages of free slots back to the system (`MADV_DONTNEED`). The arena stays as
    /// large, and takes less memory until the slots are used again.
    ///
    /// Each free slot is claimed for the time of the call that gives its pages back, and is free
    /// afterwards. Only whole pages in adjacent slots are given back.
    ///
    /// Nothing is given back while the arena is registered with a ring, or a slot is quarantined.
    /// The same holds for memory that is no mapping of this library. The report says so.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::with_sizes(256, 4096).alignment(4096).build()?;
    /// let report = arena.trim();
    /// assert_eq!((report.bytes, report.obstacle), (1 << 20, None));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn trim(&self) -> TrimReport {
        Trim(&self.handle).run()
    }

    /// Finds the slot that a slice lies in, and its distance from the start of that slot.
    ///
    /// Returns `None` if the slice is empty, spans slots, or is not of this arena. So the slot of a
    /// frozen `Bytes` is found, to send or write the bytes from there.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::new(8, 64)?;
    /// let mut buffer = arena.allocate()?;
    /// let slot_index = buffer.slot_index();
    /// buffer.put_slice(b"0123456789");
    /// let bytes = buffer.freeze().slice(4..);
    /// let location = arena.locate(&bytes).unwrap();
    /// assert_eq!((Some(location.slot_index), location.offset), (slot_index, 4));
    /// assert_eq!(arena.locate(b"not ours"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn locate(&self, slice: &[u8]) -> Option<Location> {
        let start = self.handle.region.start().addr().get();
        let distance = slice.as_ptr().addr().checked_sub(start)?;
        let last = distance.checked_add(slice.len().checked_sub(1)?)?;
        let slot_bytes = self.handle.slot_bytes;
        let slot = distance / slot_bytes;
        if slot >= self.slot_count() || last / slot_bytes != slot {
            return None;
        }
        Some(Location { slot_index: slot as u32, offset: distance % slot_bytes })
    }

    /// Returns the number of slots.
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::new(8, 4096)?;
    /// assert_eq!((arena.slot_count(), arena.slot_capacity()), (8, 4096));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn slot_count(&self) -> usize {
        self.handle.allocator.slots().slot_count()
    }

    /// Returns the number of bytes in each slot.
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::with_sizes(8, 5000).alignment(4096).build()?;
    /// assert_eq!(arena.slot_capacity(), 8192);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn slot_capacity(&self) -> usize {
        self.handle.slot_bytes
    }
}

/// Shows the sizes, the slots by state, and the number of claimants that wait.
///
/// It walks over all slots.
impl fmt::Debug for FixedArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedArena")
            .field("slot_count", &self.slot_count())
            .field("slot_capacity", &self.slot_capacity())
            .field("slots", &format_args!("{}", self.slot_states()))
            .field("waiters", &self.handle.waiters.counts().waiters)
            .finish_non_exhaustive()
    }
}
