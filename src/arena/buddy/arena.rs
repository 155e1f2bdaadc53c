//! The buddy arena: claims of blocks of variable size.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::geometry::BuddyGeometry;
use crate::arena::builder::AllocError;
#[cfg(feature = "holders")]
use crate::arena::builder::keep_report;
use crate::buffer::Buffer;
use crate::lease::{Handle, Lease, Place, Trim, TrimReport, WaitForSlot};

/// The most bytes that the kernel registers as one buffer
/// ([io_uring_register_buffers(3)](https://man7.org/linux/man-pages/man3/io_uring_register_buffers.3.html)).
///
/// The kernel knows a buddy arena as few regions of this length.
const REGION_BYTES_MAX: usize = 1 << 30;

/// The refusals between two looks at how much is in use, for the high-water mark.
const REFUSALS_PER_LOOK: u64 = 1024;

/// An arena of blocks of variable size; clones share the memory.
///
/// The sizes are powers of two, from the smallest block to the whole arena. Buffers are those of
/// the [`FixedArena`](crate::FixedArena): writing, freezing, spilling and freeing are the same.
/// Free neighbours *are* a larger block, so a request is refused only if at some instant no block
/// of its size was free. An arena with nothing in use serves its largest block. The cost of a claim
/// does not grow with the arena.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::BuddyArena;
///
/// let arena = BuddyArena::new(1 << 20, 256)?;
/// let mut acknowledgement = arena.allocate_bytes(40)?;
/// let mut frame = arena.allocate_bytes(60_000)?;
/// assert_eq!((acknowledgement.capacity(), frame.capacity()), (40, 60_000));
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

/// The place of a slice in a [`BuddyArena`]: see [`BuddyArena::locate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionLocation {
    /// The index of the region that holds the slice: its registered-buffer index.
    pub region_index: u32,
    /// The distance in bytes from the start of that region to the first byte.
    pub offset: usize,
}

impl BuddyArena {
    pub(super) fn from_handle(handle: Handle, geometry: BuddyGeometry) -> BuddyArena {
        BuddyArena { handle, geometry }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Claims the smallest block that holds `len` bytes; never waits for one.
    ///
    /// A refusal ends after few passes over the allocator, as that of
    /// [`FixedArena::allocate`](crate::FixedArena::allocate) does.
    ///
    /// # Errors
    ///
    /// [`AllocError::RequestTooLarge`] if `len` is more than [`total_size`](Self::total_size);
    /// [`AllocError::ArenaFull`] if, at some instant during the call, no block of the size was
    /// free.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use uring_arena::{AllocError, BuddyArena};
    ///
    /// let arena = BuddyArena::new(4096, 512)?;
    /// let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// assert_eq!(arena.allocate(bytes(4097)).unwrap_err(), AllocError::RequestTooLarge);
    /// let whole = arena.allocate(bytes(4096))?;
    /// assert_eq!(arena.allocate(bytes(1)).unwrap_err(), AllocError::ArenaFull);
    /// drop(whole);
    /// assert!(arena.allocate(bytes(1)).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as in `FixedArena::allocate`
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate(&self, len: NonZeroUsize) -> Result<Buffer, AllocError> {
        let Some(order) = self.order_of(len) else {
            return Err(self.refuse(AllocError::RequestTooLarge));
        };
        match self.claim(len, order, Place::here()) {
            Some(buffer) => Ok(buffer),
            None => Err(self.refuse(AllocError::ArenaFull)),
        }
    }

    /// Claims the smallest block that holds `len` bytes, as [`allocate`](Self::allocate) does; 0
    /// counts as 1.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](Self::allocate).
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(1 << 20, 256)?;
    /// let (header, body) = (16, [7; 1000]);
    /// assert_eq!(arena.allocate_bytes(header + body.len())?.capacity(), 1016);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as `allocate`
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_bytes(&self, len: usize) -> Result<Buffer, AllocError> {
        self.allocate(at_least_one(len))
    }

    /// Claims a block of `order` for `len` bytes. A refusal is exact, and counts as no failure.
    #[inline(always)] // see `FixedArena::allocate`
    pub(super) fn claim(&self, len: NonZeroUsize, order: u32, place: Place) -> Option<Buffer> {
        let (lease, start) = self.handle.claim_block(order, place)?;
        Some(Buffer::new(lease, start, self.capacity_of(len, order)))
    }

    /// Claims a block as [`claim`](Self::claim) does, for a caller that waits if there is none:
    /// `None` proves nothing.
    #[inline]
    pub(super) fn try_claim(&self, len: NonZeroUsize, order: u32, place: Place) -> Option<Buffer> {
        let (lease, start) = self.handle.try_claim_block(order, place)?;
        Some(Buffer::new(lease, start, self.capacity_of(len, order)))
    }

    /// Claims the smallest block that holds `len` bytes, and blocks this thread for at most
    /// `timeout` until one is free ([`Duration::MAX`]: without end). Signals do not end the wait.
    ///
    /// A wait that ends in time does not count as a failed allocation.
    ///
    /// # Errors
    ///
    /// [`AllocError::RequestTooLarge`], at once, if the arena could not serve `len` even if it were
    /// empty; [`AllocError::ArenaFull`] if no block was free in time.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use std::time::Duration;
    /// use uring_arena::{AllocError, BuddyArena};
    ///
    /// let arena = BuddyArena::new(4096, 512)?;
    /// let (bytes, day) = (|n| NonZeroUsize::new(n).unwrap(), Duration::from_secs(86_400));
    /// let refused = arena.allocate_timeout(bytes(4097), day);
    /// assert_eq!(refused.unwrap_err(), AllocError::RequestTooLarge);
    /// let small = arena.allocate(bytes(1))?;
    /// let other = std::thread::spawn(move || drop(small));
    /// let whole = arena.allocate_timeout(bytes(4096), day)?;
    /// # other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_timeout(
        &self,
        len: NonZeroUsize,
        timeout: Duration,
    ) -> Result<Buffer, AllocError> {
        let order = self.order_of(len).ok_or_else(|| self.refuse(AllocError::RequestTooLarge))?;
        let place = Place::here();
        if let Some(buffer) = self.try_claim(len, order, place) {
            return Ok(buffer);
        }
        // A timeout beyond the clock's range is none.
        let deadline = Instant::now().checked_add(timeout);
        let found = match WaitForSlot::claim_or_join(&self.handle, order, place) {
            Ok(lease) => Some(lease),
            Err(wait) => wait.wait(deadline),
        };
        let buffer = found.map(|lease| self.buffer_of(lease, len, order));
        buffer.ok_or_else(|| self.refuse(AllocError::ArenaFull))
    }

    /// Claims a block, as [`allocate_timeout`](Self::allocate_timeout) does; a `len` of 0 counts as
    /// 1.
    ///
    /// # Errors
    ///
    /// As for [`allocate_timeout`](Self::allocate_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(4096, 512)?;
    /// let buffer = arena.allocate_bytes_timeout(1000, Duration::from_secs(1))?;
    /// assert_eq!(buffer.capacity(), 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate_bytes_timeout(
        &self,
        len: usize,
        timeout: Duration,
    ) -> Result<Buffer, AllocError> {
        self.allocate_timeout(at_least_one(len), timeout)
    }

    /// Returns the buffer of a block that the caller waited for.
    pub(super) fn buffer_of(&self, lease: Lease, len: NonZeroUsize, order: u32) -> Buffer {
        let start = lease.slot_start();
        Buffer::new(lease, start, self.capacity_of(len, order))
    }

    #[inline(always)] // see `FixedArena::allocate`
    fn capacity_of(&self, len: NonZeroUsize, order: u32) -> usize {
        if self.geometry.is_nearest() { len.get() } else { self.geometry.min_block_size() << order }
    }

    /// Returns the order of the smallest block that holds `len` bytes, `None` if there is none.
    #[inline]
    pub(super) fn order_of(&self, len: NonZeroUsize) -> Option<u32> {
        // The logarithm, rounded up.
        let bits = usize::BITS - (len.get() - 1).leading_zeros();
        let order = bits.saturating_sub(self.geometry.min_block_size().trailing_zeros());
        (order <= self.geometry.order()).then_some(order)
    }

    #[cold]
    pub(super) fn refuse(&self, error: AllocError) -> AllocError {
        self.handle.waiters.record_refusal();
        #[cfg(feature = "holders")]
        keep_report(&self.handle);
        let refusals = self.handle.waiters.refusals();
        // The count reads the whole allocator, as a refusal does: it is made for few of them.
        if refusals.is_power_of_two() || refusals.is_multiple_of(REFUSALS_PER_LOOK) {
            self.handle.note_live();
        }
        error
    }

    /// Gives the pages of free blocks back to the system (`MADV_DONTNEED`). The arena stays as
    /// large, and takes less memory until the blocks are used again.
    ///
    /// Each free block is claimed for the time of the call that gives its pages back, and is free
    /// afterwards. Only whole pages in a block are given back.
    ///
    /// Nothing is given back while the arena is registered with a ring, or a block is quarantined.
    /// The same holds for memory that is no mapping of this library. The report says so.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(1 << 20, 4096)?;
    /// let report = arena.trim();
    /// assert_eq!((report.bytes, report.obstacle), (1 << 20, None));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn trim(&self) -> TrimReport {
        Trim(&self.handle).run()
    }

    /// Finds the region that a slice lies in, and its distance from the start of that region.
    ///
    /// Returns `None` if the slice is empty, spans regions, or is not of this arena. The index of
    /// the region is its registered-buffer index, so that a block of any size, frozen or not, goes
    /// out by fixed-buffer operations.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(1 << 20, 256)?;
    /// let mut buffer = arena.allocate_bytes(5000)?;
    /// buffer.put_slice(b"0123456789");
    /// let frozen = buffer.freeze();
    /// let (whole, part) = (arena.locate(&frozen).unwrap(), arena.locate(&frozen[4..]).unwrap());
    /// assert_eq!((part.region_index, part.offset), (0, whole.offset + 4));
    /// assert_eq!(arena.locate(b"not ours"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn locate(&self, slice: &[u8]) -> Option<RegionLocation> {
        let region = &self.handle.region;
        let distance = slice.as_ptr().addr().checked_sub(region.start().addr().get())?;
        let last = distance.checked_add(slice.len().checked_sub(1)?)?;
        let index = distance / REGION_BYTES_MAX;
        if last >= region.len() || last / REGION_BYTES_MAX != index {
            return None;
        }
        Some(RegionLocation { region_index: index as u32, offset: distance % REGION_BYTES_MAX })
    }

    /// Returns the number of bytes that the arena manages.
    ///
    /// ```
    /// let arena = uring_arena::BuddyArena::new(1_000_000, 1000)?;
    /// assert_eq!((arena.total_size(), arena.min_block_size()), (1 << 20, 1024));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn total_size(&self) -> usize {
        self.geometry.total_size()
    }

    /// Returns the number of bytes of the smallest block.
    ///
    /// The example of [`total_size`](Self::total_size) shows it.
    pub fn min_block_size(&self) -> usize {
        self.geometry.min_block_size()
    }

    /// Returns the number of doublings that make the largest block from the smallest.
    ///
    /// ```
    /// let arena = uring_arena::BuddyArena::new(4096, 512)?;
    /// assert_eq!(arena.min_block_size() << arena.max_order(), arena.total_size());
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn max_order(&self) -> usize {
        self.geometry.max_order()
    }

    /// Counts the blocks of `len` bytes that could be claimed now, one after the other.
    ///
    /// Returns 0 if the arena could never serve `len`. The call walks over the whole allocator: it
    /// is for monitoring fragmentation, not for hot paths.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(1 << 20, 256)?;
    /// let small = arena.allocate_bytes(1)?;
    /// assert_eq!(arena.free_blocks(NonZeroUsize::new(65536).unwrap()), 15);
    /// # drop(small);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_blocks(&self, len: NonZeroUsize) -> usize {
        self.order_of(len)
            .map_or(0, |order| self.handle.allocator.blocks().free_runs(order) as usize)
    }
}

/// Returns `len` as a size that is never zero.
#[inline]
pub(super) fn at_least_one(len: usize) -> NonZeroUsize {
    NonZeroUsize::new(len).unwrap_or(NonZeroUsize::MIN)
}

/// Shows the sizes, the smallest blocks by state, and the number of claimants that wait.
///
/// It walks over the whole allocator.
impl fmt::Debug for BuddyArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuddyArena")
            .field("total_size", &self.total_size())
            .field("min_block_size", &self.min_block_size())
            .field("max_order", &self.max_order())
            .field("min_blocks", &format_args!("{}", self.slot_states()))
            .field("waiters", &self.handle.waiters.counts().waiters)
            .finish_non_exhaustive()
    }
}
