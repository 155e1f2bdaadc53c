//! The buddy arena: blocks of variable size.

use std::fmt;
use std::num::NonZeroUsize;

use super::{BuddyArenaBuilder, BuddyGeometry};
use crate::buffer::Buffer;
use crate::error::AllocError;
use crate::lease::{Handle, Lease};
use crate::sync::Ordering;

/// An arena of blocks of variable size: powers of two from the smallest block to the whole; clones
/// share the memory.
///
/// Buffers are those of the [`FixedArena`](crate::FixedArena): same writing, freezing, spilling and
/// going home. Free neighbours *are* a larger block, so a request is refused only if at some
/// instant no block of its size was free; an arena with nothing in use serves its largest block.
/// The cost of a claim does not grow with the arena.
///
/// ```
/// use std::num::NonZeroUsize;
/// use bytes::BufMut;
/// use uring_arena::{BuddyArena, BuddyGeometry};
///
/// let bytes = |n| NonZeroUsize::new(n).unwrap();
/// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(1 << 20), bytes(256))?).build()?;
/// let mut acknowledgement = arena.allocate(bytes(40))?;
/// let mut frame = arena.allocate(bytes(60_000))?;
/// assert_eq!((acknowledgement.capacity(), frame.capacity()), (256, 65536));
/// acknowledgement.put_slice(b"ok");
/// frame.put_bytes(7, 60_000);
/// assert_eq!(frame.freeze().len(), 60_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BuddyArena {
    handle: Handle,
    geometry: BuddyGeometry,
}

impl BuddyArena {
    /// Begins an arena of this shape.
    pub fn builder(geometry: BuddyGeometry) -> BuddyArenaBuilder {
        BuddyArenaBuilder::of_geometry(geometry)
    }

    pub(in crate::arena) fn new(handle: Handle, geometry: BuddyGeometry) -> BuddyArena {
        BuddyArena { handle, geometry }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Claims the smallest block that holds `len` bytes; never blocks.
    ///
    /// # Errors
    ///
    /// [`AllocError::RequestTooLarge`] if `len` is more than [`total_size`](Self::total_size);
    /// [`AllocError::ArenaFull`] if, at some instant during the call, no block of the size was
    /// free.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{AllocError, BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(4096), bytes(512))?).build()?;
    /// assert_eq!(arena.allocate(bytes(4097)).unwrap_err(), AllocError::RequestTooLarge);
    /// let whole = arena.allocate(bytes(4096))?;
    /// assert_eq!(arena.allocate(bytes(1)).unwrap_err(), AllocError::ArenaFull);
    /// drop(whole);
    /// assert!(arena.allocate(bytes(1)).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as in `FixedArena::allocate`
    pub fn allocate(&self, len: NonZeroUsize) -> Result<Buffer, AllocError> {
        let Some(order) = self.order_of(len) else {
            return Err(self.refuse(AllocError::RequestTooLarge));
        };
        match self.claim(len, order) {
            Some(buffer) => Ok(buffer),
            None => Err(self.refuse(AllocError::ArenaFull)),
        }
    }

    /// Claims a block of `order` for `len` bytes; for who will wait, finding nothing counts as no
    /// failure.
    #[inline(always)] // see `FixedArena::allocate`
    pub(in crate::arena) fn claim(&self, len: NonZeroUsize, order: u32) -> Option<Buffer> {
        let (lease, start) = self.handle.claim_block(order)?;
        Some(Buffer::new(lease, start, self.capacity_of(len, order)))
    }

    /// The buffer of a block that was kept for the caller while it waited.
    pub(in crate::arena) fn buffer_of(
        &self,
        lease: Lease,
        len: NonZeroUsize,
        order: u32,
    ) -> Buffer {
        let start = lease.slot_start();
        Buffer::new(lease, start, self.capacity_of(len, order))
    }

    #[inline(always)] // see `FixedArena::allocate`
    fn capacity_of(&self, len: NonZeroUsize, order: u32) -> usize {
        if self.geometry.is_nearest() { len.get() } else { self.geometry.min_block_size() << order }
    }

    /// The order of the smallest block that holds `len` bytes, `None` if there is none.
    #[inline]
    pub(in crate::arena) fn order_of(&self, len: NonZeroUsize) -> Option<u32> {
        // The logarithm, rounded up.
        let bits = usize::BITS - (len.get() - 1).leading_zeros();
        let order = bits.saturating_sub(self.geometry.min_block_size().trailing_zeros());
        (order <= self.geometry.order()).then_some(order)
    }

    #[cold]
    pub(in crate::arena) fn refuse(&self, error: AllocError) -> AllocError {
        // Relaxed: a counter.
        self.handle.counters.failed.fetch_add(1, Ordering::Relaxed);
        error
    }

    /// Bytes that the arena manages.
    pub fn total_size(&self) -> usize {
        self.geometry.total_size()
    }

    /// Bytes of the smallest block.
    pub fn min_block_size(&self) -> usize {
        self.geometry.min_block_size()
    }

    /// How often the smallest block is doubled to make the largest.
    pub fn max_order(&self) -> usize {
        self.geometry.max_order()
    }

    /// How many blocks of `len` bytes could be claimed now, one after the other; 0 if none could
    /// ever.
    ///
    /// A snapshot that walks over the books: for monitoring fragmentation, not for hot paths.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(1 << 20), bytes(256))?).build()?;
    /// let small = arena.allocate(bytes(1))?;
    /// assert_eq!(arena.free_blocks(bytes(65536)), 15);
    /// # drop(small);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_blocks(&self, len: NonZeroUsize) -> usize {
        self.order_of(len)
            .map_or(0, |order| self.handle.allocator.blocks().free_runs(order) as usize)
    }
}

impl fmt::Debug for BuddyArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuddyArena")
            .field("total_size", &self.total_size())
            .field("min_block_size", &self.min_block_size())
            .field("max_order", &self.max_order())
            .finish_non_exhaustive()
    }
}
