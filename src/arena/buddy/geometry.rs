//! The shape of a buddy arena.

use std::num::NonZeroUsize;

use crate::error::BuildError;

/// The shape of a [`BuddyArena`](crate::BuddyArena): total size, smallest block, alignment.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::BuddyGeometry;
///
/// let bytes = |n| NonZeroUsize::new(n).unwrap();
/// let geometry = BuddyGeometry::exact(bytes(1 << 20), bytes(4096))?.with_alignment(bytes(4096))?;
/// assert_eq!((geometry.max_order(), geometry.alignment()), (8, 4096));
///
/// let geometry = BuddyGeometry::nearest(bytes(1_000_000), bytes(1000))?;
/// assert_eq!((geometry.total_size(), geometry.min_block_size()), (1 << 20, 1024));
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuddyGeometry {
    /// Invariant: a power of two, and `min_block << max_order` fits in `usize`.
    min_block: usize,
    max_order: u32,
    /// Invariant: a power of two, at most `min_block`.
    alignment: usize,
    /// A buffer's capacity is what was asked for, not the block.
    is_nearest: bool,
}

impl BuddyGeometry {
    /// The shape as given; a buffer's capacity is its whole block.
    ///
    /// # Errors
    ///
    /// [`BuildError::InvalidGeometry`] unless `min_block_size` is a power of two and `total_size` a
    /// power-of-two multiple of it.
    pub fn exact(
        total_size: NonZeroUsize,
        min_block_size: NonZeroUsize,
    ) -> Result<BuddyGeometry, BuildError> {
        let (total, min_block) = (total_size.get(), min_block_size.get());
        // A power of two that is not smaller than another is a power-of-two multiple of it.
        if !min_block.is_power_of_two() || !total.is_power_of_two() || total < min_block {
            return Err(BuildError::InvalidGeometry);
        }
        Ok(BuddyGeometry {
            min_block,
            max_order: (total / min_block).ilog2(),
            alignment: 1,
            is_nearest: false,
        })
    }

    /// The nearest shape that holds at least what is given; a buffer's capacity is the length that
    /// was asked for.
    ///
    /// # Errors
    ///
    /// [`BuildError::SizeOverflow`] if the sizes, rounded up, do not fit in `usize`.
    pub fn nearest(
        total_size: NonZeroUsize,
        min_block_size: NonZeroUsize,
    ) -> Result<BuddyGeometry, BuildError> {
        let min_block =
            min_block_size.checked_next_power_of_two().ok_or(BuildError::SizeOverflow)?.get();
        let max_order = orders_up_to(total_size.get(), min_block)?;
        Ok(BuddyGeometry { min_block, max_order, alignment: 1, is_nearest: true })
    }

    /// The same shape with blocks that start on multiples of `alignment`; 4096 serves every
    /// `O_DIRECT` device.
    ///
    /// # Errors
    ///
    /// [`BuildError::InvalidAlignment`] unless it is a power of two. More than the smallest block
    /// is [`BuildError::InvalidGeometry`] for an exact shape; the nearest shape takes it for its
    /// smallest block ([`BuildError::SizeOverflow`] if that does not fit in `usize`).
    pub fn with_alignment(self, alignment: NonZeroUsize) -> Result<BuddyGeometry, BuildError> {
        if !alignment.is_power_of_two() {
            return Err(BuildError::InvalidAlignment);
        }
        let alignment = alignment.get();
        if alignment <= self.min_block {
            return Ok(BuddyGeometry { alignment, ..self });
        }
        if !self.is_nearest {
            return Err(BuildError::InvalidGeometry);
        }
        let max_order = orders_up_to(self.total_size(), alignment)?;
        Ok(BuddyGeometry { min_block: alignment, max_order, alignment, ..self })
    }

    /// Bytes in all: `min_block_size << max_order`.
    pub fn total_size(&self) -> usize {
        self.min_block << self.max_order
    }

    /// Bytes of the smallest block.
    pub fn min_block_size(&self) -> usize {
        self.min_block
    }

    /// How often the smallest block is doubled to make the largest.
    pub fn max_order(&self) -> usize {
        self.max_order as usize
    }

    /// What block starts are multiples of.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    pub(super) fn is_nearest(&self) -> bool {
        self.is_nearest
    }

    pub(super) fn order(&self) -> u32 {
        self.max_order
    }
}

/// How often `min_block` must be doubled to hold `total`.
fn orders_up_to(total: usize, min_block: usize) -> Result<u32, BuildError> {
    let total = total.max(min_block).checked_next_power_of_two().ok_or(BuildError::SizeOverflow)?;
    Ok((total / min_block).ilog2())
}

/// How memory that the caller brought is cut into blocks.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{BuddyArena, BuddyHint};
///
/// let memory = Box::leak(vec![0u8; 100_000].into_boxed_slice());
/// let arena = BuddyArena::from_static(memory, BuddyHint::MinAlloc(NonZeroUsize::new(200).unwrap())).build()?;
/// assert_eq!((arena.min_block_size(), arena.total_size()), (256, 65536));
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuddyHint {
    /// The smallest block, rounded up to a power of two; doubled as often as fits in the memory.
    /// The rest is unused.
    MinAlloc(NonZeroUsize),
}

impl BuddyHint {
    /// [`BuddyHint::MinAlloc`].
    pub fn min_alloc(bytes: NonZeroUsize) -> BuddyHint {
        BuddyHint::MinAlloc(bytes)
    }

    /// The shape that fits in `len` bytes.
    pub(super) fn cut(self, len: usize) -> Result<BuddyGeometry, BuildError> {
        let BuddyHint::MinAlloc(bytes) = self;
        let min_block = bytes.checked_next_power_of_two().ok_or(BuildError::ZeroUsableSlots)?.get();
        let max_order = (len / min_block).checked_ilog2().ok_or(BuildError::ZeroUsableSlots)?;
        Ok(BuddyGeometry { min_block, max_order, alignment: 1, is_nearest: false })
    }
}
