//! How memory that the caller brought is cut into slots.

use std::num::NonZeroUsize;

use crate::error::BuildError;

/// How memory that the caller brought is cut into slots.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{FixedArena, SlotSpec};
///
/// let memory = Box::leak(vec![0u8; 1000].into_boxed_slice());
/// let arena = FixedArena::from_static(memory, SlotSpec::Size(NonZeroUsize::new(300).unwrap())).build()?;
/// assert_eq!((arena.slot_count(), arena.slot_capacity()), (3, 300));
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSpec {
    /// This many slots, each as large as fits, rounded down to the alignment.
    Count(NonZeroUsize),
    /// As many slots of this many bytes (rounded down to the alignment) as fit; the tail is unused.
    Size(NonZeroUsize),
}

impl SlotSpec {
    /// Slot count and slot bytes in `len` bytes of memory.
    pub(super) fn cut(self, len: usize, alignment: usize) -> Result<(usize, usize), BuildError> {
        let align_down = |bytes: usize| bytes & !(alignment - 1);
        let (count, slot_bytes) = match self {
            SlotSpec::Count(count) => (count.get(), align_down(len / count)),
            SlotSpec::Size(size) => {
                let slot_bytes = align_down(size.get());
                if slot_bytes > len {
                    return Err(BuildError::SlotSizeExceedsBacking);
                }
                (len.checked_div(slot_bytes).unwrap_or(0), slot_bytes)
            }
        };
        if count == 0 || slot_bytes == 0 {
            return Err(BuildError::ZeroUsableSlots);
        }
        Ok((count, slot_bytes))
    }
}
