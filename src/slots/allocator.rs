//! The allocator of an arena, of either kind.

use super::bitmap::{FreeOutcome, Search, SlotBitmap, SlotGroup};
use super::buddy::BuddyAllocator;

/// An allocator of indices: of equal slots, or of blocks of variable size.
#[allow(clippy::large_enum_variant)] // one in each core, and read on every claim: no box
pub(crate) enum Allocator {
    /// Equal slots.
    Slots(SlotBitmap),
    /// Blocks of variable size.
    Blocks(BuddyAllocator),
}

impl Allocator {
    /// Returns `true` if the allocator is that of a fixed arena.
    pub(crate) fn has_slots(&self) -> bool {
        matches!(self, Allocator::Slots(_))
    }

    /// Returns the bitmap of a fixed arena.
    #[inline]
    pub(crate) fn slots(&self) -> &SlotBitmap {
        match self {
            Allocator::Slots(bitmap) => bitmap,
            Allocator::Blocks(_) => unreachable!("a fixed arena allocates slots"),
        }
    }

    /// Returns the tree of a buddy arena.
    #[inline]
    pub(crate) fn blocks(&self) -> &BuddyAllocator {
        match self {
            Allocator::Blocks(buddy) => buddy,
            Allocator::Slots(_) => unreachable!("a buddy arena allocates blocks"),
        }
    }

    /// Returns the number of indices: of slots, or of smallest blocks.
    pub(crate) fn index_count(&self) -> usize {
        match self {
            Allocator::Slots(bitmap) => bitmap.slot_count(),
            Allocator::Blocks(buddy) => buddy.min_block_count(),
        }
    }

    /// Returns the number of slots, or `None` if the allocator has blocks.
    pub(crate) fn slot_count(&self) -> Option<usize> {
        match self {
            Allocator::Slots(bitmap) => Some(bitmap.slot_count()),
            Allocator::Blocks(_) => None,
        }
    }

    /// Returns the number of words that must drain before a closed arena is given back.
    pub(crate) fn word_count(&self) -> usize {
        match self {
            Allocator::Slots(bitmap) => bitmap.word_count(),
            Allocator::Blocks(buddy) => buddy.word_count(),
        }
    }

    /// Closes every word. Returns how many were drained already.
    pub(crate) fn close(&self) -> usize {
        match self {
            Allocator::Slots(bitmap) => bitmap.close(),
            Allocator::Blocks(buddy) => buddy.close(),
        }
    }

    /// Returns the number of orders. Equal slots are all of order 0.
    pub(crate) fn order_count(&self) -> usize {
        match self {
            Allocator::Slots(_) => 1,
            Allocator::Blocks(buddy) => buddy.max_order() as usize + 1,
        }
    }

    /// Claims a slot, or a block of `order`, in at most two passes. Returns its first index.
    pub(crate) fn search(&self, order: u32) -> Search<u32> {
        match self {
            Allocator::Slots(bitmap) => bitmap.search(1).map(SlotGroup::lowest),
            Allocator::Blocks(buddy) => buddy.search(order),
        }
    }

    /// Claims a slot, or a block of `order`, while nobody frees: for a caller that holds the lock
    /// of the wait queue, with the `WAITERS` flags set. `None` is exact.
    pub(crate) fn claim_still(&self, order: u32) -> Option<u32> {
        match self {
            Allocator::Slots(bitmap) => bitmap.claim_still(),
            Allocator::Blocks(buddy) => buddy.claim_still(order),
        }
    }

    /// Frees the caller's claim of a slot, or of a block of `order`, also if somebody waits.
    ///
    /// The allocator may be gone afterwards, unless the caller holds a handle of the arena.
    pub(crate) fn free_ignoring_waiters(&self, first: u32, order: u32) -> FreeOutcome {
        match self {
            Allocator::Slots(bitmap) => bitmap.free_ignoring_waiters(first),
            Allocator::Blocks(buddy) => buddy.free_ignoring_waiters(first, order),
        }
    }

    /// Sets the `WAITERS` flag of every word: later frees offer their memory to the wait queue.
    pub(crate) fn set_waiters_flags(&self) {
        match self {
            Allocator::Slots(bitmap) => bitmap.set_waiters_flags(),
            Allocator::Blocks(buddy) => buddy.set_waiters_flags(),
        }
    }

    /// Clears the `WAITERS` flag of every word.
    pub(crate) fn clear_waiters_flags(&self) {
        match self {
            Allocator::Slots(bitmap) => bitmap.clear_waiters_flags(),
            Allocator::Blocks(buddy) => buddy.clear_waiters_flags(),
        }
    }
}
