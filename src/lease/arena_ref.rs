//! For owners of bytes in an arena that have no lease in hand: `Bytes` hides it.
//!
//! # Safety
//!
//! Unsafe here: reaching the core through a pointer that counts nothing. The slot whose bytes the
//! caller owns keeps it live.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::allocator::Allocator;
use super::core::Core;
use crate::region::Region;
use crate::sync::Ordering;

/// The arena that some bytes may lie in, without a count of its own. Good for owners of bytes in
/// it: while they exist, so does the arena.
#[derive(Debug, Clone, Copy)]
pub struct ArenaRef {
    core: NonNull<Core>,
    start: usize,
    len: usize,
}

// SAFETY: an address; what is reached through it (by the caller's promise) is a `Core`, which is
// Send + Sync.
unsafe impl Send for ArenaRef {}
// SAFETY: as above.
unsafe impl Sync for ArenaRef {}

impl ArenaRef {
    #[inline]
    pub(super) fn new(core: NonNull<Core>, region: &Region) -> ArenaRef {
        ArenaRef { core, start: region.start().addr().get(), len: region.len() }
    }

    /// No arena: covers nothing.
    pub(crate) fn of_nothing() -> ArenaRef {
        ArenaRef { core: NonNull::dangling(), start: 0, len: 0 }
    }

    /// Whether `address` lies in the arena.
    #[inline]
    pub(crate) fn covers(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.len
    }

    /// Counts the slot that holds `address` as lost for good, once.
    ///
    /// # Safety
    ///
    /// `address` is covered, and its slot is claimed and, by the caller's doing, stays so for ever.
    pub(crate) unsafe fn note_quarantine(self, address: usize) {
        // SAFETY: the claim keeps the core live.
        let core = unsafe { self.core.as_ref() };
        let unit = ((address - self.start) / core.slot_bytes) as u32;
        let slot = match &core.allocator {
            Allocator::Slots(_) => unit,
            Allocator::Blocks(map) => {
                // A block is told of at its first unit.
                // SAFETY: live, and the books number only units that have headers.
                let header_at = |first| unsafe { Core::header_at(self.core, first) };
                // SAFETY: headers live as long as the core, and are all atomics.
                let order_at = |first| unsafe { header_at(first).as_ref() }.order().into();
                map.block_around(unit, order_at).unwrap_or(unit)
            }
        };
        // SAFETY: live, and the slot exists because it is claimed.
        let header = unsafe { Core::header_at(self.core, slot) };
        // SAFETY: headers live as long as the core, and are all atomics.
        if unsafe { header.as_ref() }.note_quarantine() {
            // Relaxed: a counter.
            core.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        }
    }
}
