//! A buddy arena as the kernel shall know it: few large regions, and blocks found by region.

use super::BuddyArena;

/// The kernel registers no buffer longer than this
/// ([io_uring_register_buffers(3)](https://man7.org/linux/man-pages/man3/io_uring_register_buffers.3.html)).
pub(crate) const REGION_BYTES_MAX: usize = 1 << 30;

/// Where a slice lies in a [`BuddyArena`]: see [`BuddyArena::locate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionLocation {
    /// The region that holds the slice: its registered-buffer index.
    pub region_index: u32,
    /// Bytes from the start of that region to the first byte.
    pub offset: usize,
}

impl BuddyArena {
    /// Which region a slice lies in, and how far from its start. `None` if the slice is not of this
    /// arena, or is empty, or spans regions.
    ///
    /// The region's index is its registered-buffer index, so that a block of any size, frozen or
    /// not, goes out by fixed-buffer operations.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # use uring_arena::{BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(1 << 20), bytes(256))?).build()?;
    /// let mut buffer = arena.allocate(bytes(5000))?;
    /// buffer.put_slice(b"0123456789");
    /// let frozen = buffer.freeze();
    /// let (whole, part) = (arena.locate(&frozen).unwrap(), arena.locate(&frozen[4..]).unwrap());
    /// assert_eq!((part.region_index, part.offset), (0, whole.offset + 4));
    /// assert_eq!(arena.locate(b"not ours"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn locate(&self, slice: &[u8]) -> Option<RegionLocation> {
        let region = &self.handle().region;
        let distance = slice.as_ptr().addr().checked_sub(region.start().addr().get())?;
        let last = distance.checked_add(slice.len().checked_sub(1)?)?;
        let index = distance / REGION_BYTES_MAX;
        if last >= region.len() || last / REGION_BYTES_MAX != index {
            return None;
        }
        Some(RegionLocation { region_index: index as u32, offset: distance % REGION_BYTES_MAX })
    }
}
