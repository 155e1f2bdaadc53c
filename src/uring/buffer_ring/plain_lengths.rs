//! Which messages are like most.

use super::BufferRingOptions;
use crate::FixedArena;

/// A range of lengths that one comparison tells from all others, errors among them.
pub(super) struct PlainLengths {
    least: u32,
    count: u32,
}

impl PlainLengths {
    /// From the threshold of copies to the whole slot. None of a ring whose messages share slots,
    /// or of an arena that scrubs what was written: there each has more to be done.
    pub(super) fn new(
        options: &BufferRingOptions,
        arena: &FixedArena,
        slot_bytes: u32,
    ) -> PlainLengths {
        let least = u32::try_from(options.copy_below_bytes()).unwrap_or(u32::MAX).max(1);
        let scrubs = arena.handle().scrubs();
        let most = if options.wants_incremental() || scrubs { 0 } else { slot_bytes };
        PlainLengths { least, count: (most + 1).saturating_sub(least) }
    }

    /// Whether a completion with this result is of such a length.
    #[inline]
    pub(super) fn contain(&self, result: i32) -> bool {
        (result as u32).wrapping_sub(self.least) < self.count
    }
}
