//! A reference to an arena, for owners of its bytes that have no lease in hand: `Bytes` hides it.
//!
//! # Safety
//!
//! Unsafe here: reaching the core through a pointer that counts nothing. The slot whose bytes the
//! caller owns keeps the core live.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::core::Core;
use crate::region::Region;
use crate::slots::Allocator;
use crate::sync::Ordering;

/// An uncounted reference to the arena that some bytes may lie in. The owner of such bytes may use
/// it: while the bytes exist, so does the arena.
#[derive(Debug, Clone, Copy)]
pub struct ArenaRef {
    core: NonNull<Core>,
    start: usize,
    len: usize,
}

// SAFETY: an address. The value behind it, reached by a caller's promise, is a `Core`, which is
// Send + Sync.
unsafe impl Send for ArenaRef {}
// SAFETY: as above.
unsafe impl Sync for ArenaRef {}

impl ArenaRef {
    #[inline]
    pub(super) fn new(core: NonNull<Core>, region: &Region) -> ArenaRef {
        ArenaRef { core, start: region.start().addr().get(), len: region.len() }
    }

    /// Makes a reference to no arena. It covers nothing.
    pub(crate) fn of_nothing() -> ArenaRef {
        ArenaRef { core: NonNull::dangling(), start: 0, len: 0 }
    }

    /// Returns `true` if `address` lies in the arena.
    #[inline]
    pub(crate) fn covers(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }

    /// Counts the slot that holds `address` as lost for good, once.
    ///
    /// # Safety
    ///
    /// `address` is covered, and its slot is claimed and, by the caller's doing, stays so for ever.
    pub(crate) unsafe fn mark_quarantined(self, address: usize) {
        // SAFETY: the claim keeps the core live.
        let core = unsafe { self.core.as_ref() };
        let index = ((address - self.start) / core.slot_bytes) as u32;
        let slot = match &core.allocator {
            Allocator::Slots(_) => index,
            Allocator::Blocks(buddy) => {
                // The header of a block is that of its first smallest block.
                // SAFETY: live, and the allocator has only indices that have headers.
                let header_at = |first| unsafe { Core::header_at(self.core, first) };
                // SAFETY: headers live as long as the core, and are all atomics.
                let order_at = |first| unsafe { header_at(first).as_ref() }.order().into();
                buddy.block_around(index, order_at).unwrap_or(index)
            }
        };
        // SAFETY: live, and the slot exists because it is claimed.
        let header = unsafe { Core::header_at(self.core, slot) };
        // SAFETY: headers live as long as the core, and are all atomics.
        if unsafe { header.as_ref() }.mark_quarantined() {
            // Relaxed: a counter.
            core.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        }
    }
}
