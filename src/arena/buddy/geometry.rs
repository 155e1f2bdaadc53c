//! The shape of a buddy arena.

use std::num::NonZeroUsize;

use crate::arena::builder::refused;
use crate::region::BuildError;

/// The shape of a [`BuddyArena`](crate::BuddyArena): total size, smallest block, alignment.
///
/// | made by | sizes | capacity of a buffer |
/// |---|---|---|
/// | [`exact`](Self::exact) | as given, or an error | its whole block |
/// | [`nearest`](Self::nearest) | rounded up | the length that was asked for |
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
    // Invariant: a power of two, and `min_block << max_order` fits in `usize`.
    min_block: usize,
    max_order: u32,
    // Invariant: a power of two, at most `min_block`.
    alignment: usize,
    /// True if the capacity of a buffer is the length that was asked for.
    is_nearest: bool,
}

impl BuddyGeometry {
    /// Makes the shape as given.
    ///
    /// The capacity of a buffer is its whole block.
    ///
    /// # Errors
    ///
    /// [`BuildError::InvalidGeometry`] unless `min_block_size` is a power of two and `total_size` a
    /// power-of-two multiple of it.
    ///
    /// ```
    /// use uring_arena::{BuddyGeometry, BuildError};
    ///
    /// let geometry = BuddyGeometry::exact(65536.try_into()?, 1024.try_into()?)?;
    /// assert_eq!(geometry.max_order(), 6);
    /// let refused = BuddyGeometry::exact(65537.try_into()?, 1024.try_into()?);
    /// assert_eq!(refused, Err(BuildError::InvalidGeometry));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exact(
        total_size: NonZeroUsize,
        min_block_size: NonZeroUsize,
    ) -> Result<BuddyGeometry, BuildError> {
        let (total, min_block) = (total_size.get(), min_block_size.get());
        // A power of two that is not smaller than another is a power-of-two multiple of it.
        if !min_block.is_power_of_two() || !total.is_power_of_two() || total < min_block {
            return Err(refused(BuildError::InvalidGeometry, (total, min_block)));
        }
        let max_order = (total / min_block).ilog2();
        Ok(BuddyGeometry { min_block, max_order, alignment: 1, is_nearest: false })
    }

    /// Makes the smallest shape that holds at least the given sizes.
    ///
    /// The capacity of a buffer is the length that was asked for.
    ///
    /// # Errors
    ///
    /// [`BuildError::SizeOverflow`] if the sizes, rounded up, do not fit in `usize`.
    ///
    /// ```
    /// use uring_arena::BuddyGeometry;
    ///
    /// let geometry = BuddyGeometry::nearest(100_000.try_into()?, 1000.try_into()?)?;
    /// assert_eq!((geometry.total_size(), geometry.min_block_size()), (131_072, 1024));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nearest(
        total_size: NonZeroUsize,
        min_block_size: NonZeroUsize,
    ) -> Result<BuddyGeometry, BuildError> {
        let min_block =
            min_block_size.checked_next_power_of_two().ok_or(BuildError::SizeOverflow)?.get();
        let max_order = orders_up_to(total_size.get(), min_block)?;
        Ok(BuddyGeometry { min_block, max_order, alignment: 1, is_nearest: true })
    }

    /// Returns the same shape with blocks that start on multiples of `alignment`.
    ///
    /// 4096 serves every `O_DIRECT` device. A [`nearest`](Self::nearest) shape raises its smallest
    /// block to the alignment.
    ///
    /// # Errors
    ///
    /// [`BuildError::InvalidAlignment`] if `alignment` is not a power of two.
    /// [`BuildError::InvalidGeometry`] if it is larger than the smallest block of an
    /// [`exact`](Self::exact) shape. [`BuildError::SizeOverflow`] if the raised block does not fit
    /// in `usize`.
    ///
    /// ```
    /// use uring_arena::BuddyGeometry;
    ///
    /// let geometry = BuddyGeometry::nearest(65536.try_into()?, 256.try_into()?)?;
    /// assert_eq!(geometry.with_alignment(4096.try_into()?)?.min_block_size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_alignment(self, alignment: NonZeroUsize) -> Result<BuddyGeometry, BuildError> {
        if !alignment.is_power_of_two() {
            return Err(refused(BuildError::InvalidAlignment, alignment));
        }
        let alignment = alignment.get();
        if alignment <= self.min_block {
            return Ok(BuddyGeometry { alignment, ..self });
        }
        if !self.is_nearest {
            return Err(refused(BuildError::InvalidGeometry, (self, alignment)));
        }
        let max_order = orders_up_to(self.total_size(), alignment)?;
        Ok(BuddyGeometry { min_block: alignment, max_order, alignment, ..self })
    }

    /// Returns the number of bytes in all: `min_block_size << max_order`.
    pub fn total_size(&self) -> usize {
        self.min_block << self.max_order
    }

    /// Returns the number of bytes of the smallest block.
    pub fn min_block_size(&self) -> usize {
        self.min_block
    }

    /// Returns the number of doublings that make the largest block from the smallest.
    pub fn max_order(&self) -> usize {
        self.max_order as usize
    }

    /// Returns the number that the address of each block is a multiple of.
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

/// Returns the number of doublings after which `min_block` holds `total`.
fn orders_up_to(total: usize, min_block: usize) -> Result<u32, BuildError> {
    let total = total.max(min_block).checked_next_power_of_two().ok_or(BuildError::SizeOverflow)?;
    Ok((total / min_block).ilog2())
}

/// A way to cut memory of the caller into blocks.
///
/// ```
/// use uring_arena::{BuddyArena, BuddyHint};
///
/// let memory = Box::leak(vec![0u8; 100_000].into_boxed_slice());
/// let arena = BuddyArena::from_static(memory, BuddyHint::MinAlloc(200.try_into()?)).build()?;
/// assert_eq!((arena.min_block_size(), arena.total_size()), (256, 65536));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuddyHint {
    /// The smallest block, rounded up to a power of two and doubled as often as fits in the memory.
    /// The rest is unused.
    MinAlloc(NonZeroUsize),
}

impl BuddyHint {
    /// Makes a [`BuddyHint::MinAlloc`].
    pub fn min_alloc(bytes: NonZeroUsize) -> BuddyHint {
        BuddyHint::MinAlloc(bytes)
    }

    /// Returns the shape that fits in `len` bytes.
    pub(super) fn cut(self, len: usize) -> Result<BuddyGeometry, BuildError> {
        let BuddyHint::MinAlloc(bytes) = self;
        let min_block = bytes.checked_next_power_of_two().ok_or(BuildError::ZeroUsableSlots)?.get();
        let max_order = (len / min_block).checked_ilog2().ok_or(BuildError::ZeroUsableSlots)?;
        Ok(BuddyGeometry { min_block, max_order, alignment: 1, is_nearest: false })
    }
}
