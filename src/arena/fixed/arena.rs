//! The fixed arena: equal slots.

use std::fmt;
use std::num::NonZeroUsize;

use super::FixedArenaBuilder;
use super::builder::Shape;
use crate::buffer::Buffer;
use crate::error::AllocError;
use crate::lease::{Handle, Lease};
use crate::sync::Ordering;

/// An arena of equal slots; clones share the memory.
///
/// A slot's index is also its registered-buffer index and its provided-buffer id. Claiming and
/// freeing are a handful of instructions and one uncontended atomic each, on any thread; N slots
/// serve exactly N claims. The memory lives until the last handle, buffer and byte is gone.
///
/// ```
/// use std::num::NonZeroUsize;
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let (count, bytes) = (NonZeroUsize::new(1024).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
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

/// Where a slice lies in an arena: see [`FixedArena::locate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The slot that holds the first byte.
    pub slot_index: u32,
    /// Bytes from the start of that slot to the first byte.
    pub offset: usize,
}

impl FixedArena {
    /// Begins an arena of `slot_count` slots of `slot_capacity` bytes each, rounded up to the
    /// alignment.
    pub fn with_slot_capacity(
        slot_count: NonZeroUsize,
        slot_capacity: NonZeroUsize,
    ) -> FixedArenaBuilder {
        FixedArenaBuilder::new(Shape::Slots { count: slot_count, bytes: slot_capacity })
    }

    /// Begins an arena of `slot_count` slots that share `arena_capacity` bytes: each holds its
    /// part, rounded up, then up to the alignment.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use uring_arena::FixedArena;
    ///
    /// let (count, bytes) = (NonZeroUsize::new(3).unwrap(), NonZeroUsize::new(1000).unwrap());
    /// let arena = FixedArena::with_arena_capacity(count, bytes).alignment(64).build()?;
    /// assert_eq!(arena.slot_capacity(), 384);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn with_arena_capacity(
        slot_count: NonZeroUsize,
        arena_capacity: NonZeroUsize,
    ) -> FixedArenaBuilder {
        FixedArenaBuilder::new(Shape::Total { count: slot_count, bytes: arena_capacity })
    }

    pub(in crate::arena) fn from_handle(handle: Handle) -> FixedArena {
        FixedArena { handle }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Claims a slot; never blocks.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if, at some instant during the call, no slot was free.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{AllocError, FixedArena};
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let buffer = arena.allocate()?;
    /// assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
    /// drop(buffer);
    /// assert!(arena.allocate().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Always: a `Buffer` that comes back through memory is written in four words and read in two
    // halves, which the processor cannot forward; out of line that costs more than the claim.
    #[inline(always)]
    pub fn allocate(&self) -> Result<Buffer, AllocError> {
        match self.claim() {
            Some(buffer) => Ok(buffer),
            None => Err(self.refuse()),
        }
    }

    /// As [`allocate`](Self::allocate), for who will wait: finding nothing counts as no failure.
    #[inline(always)] // see `FixedArena::allocate`
    pub(in crate::arena) fn claim(&self) -> Option<Buffer> {
        let (lease, start) = self.handle.claim_slot()?;
        Some(Buffer::new(lease, start, self.handle.slot_bytes))
    }

    /// Claims up to `count` slots in one go and hands each to `each`; returns how many there were.
    ///
    /// Fewer than `count` only if no further slot was free. Several slots of one word of the books
    /// cost one atomic, so this is the way to refill a ring.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::FixedArena;
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffers = Vec::new();
    /// assert_eq!(arena.allocate_many(32, |buffer| buffers.push(buffer)), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate_many(&self, count: usize, mut each: impl FnMut(Buffer)) -> usize {
        self.handle.claim_slots(count, |lease, start, _| {
            each(Buffer::new(lease, start, self.handle.slot_bytes))
        })
    }

    /// The buffer of a slot that was kept for the caller while it waited.
    pub(in crate::arena) fn buffer_of(&self, lease: Lease) -> Buffer {
        let start = lease.slot_start();
        Buffer::new(lease, start, self.handle.slot_bytes)
    }

    #[cold]
    pub(in crate::arena) fn refuse(&self) -> AllocError {
        // Relaxed: a counter.
        self.handle.counters.failed.fetch_add(1, Ordering::Relaxed);
        AllocError::ArenaFull
    }

    /// Which slot a slice lies in, and how far from its start. `None` if the slice is not of this
    /// arena, or is empty, or spans slots.
    ///
    /// Finds the slot of a frozen `Bytes`, so that it can be sent or written from there.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # use uring_arena::FixedArena;
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
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

    /// Number of slots.
    pub fn slot_count(&self) -> usize {
        self.handle.allocator.slots().slot_count()
    }

    /// Bytes in each slot.
    pub fn slot_capacity(&self) -> usize {
        self.handle.slot_bytes
    }
}

impl fmt::Debug for FixedArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedArena")
            .field("slot_count", &self.slot_count())
            .field("slot_capacity", &self.slot_capacity())
            .finish_non_exhaustive()
    }
}
