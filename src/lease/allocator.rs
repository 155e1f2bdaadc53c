//! The books of an arena, of whichever mode.

use super::header::{Header, HeaderLine};
use crate::slots::{
    BuddyAllocator, FreeOutcome, SlotBitmap, free_block_despite_waiters, free_despite_waiters,
};

/// Which of the two modes books the arena.
#[allow(clippy::large_enum_variant)] // one a core, and read on every claim: no box
pub(crate) enum Allocator {
    /// Equal slots.
    Slots(SlotBitmap),
    /// Blocks of variable size.
    Blocks(BuddyAllocator),
}

impl Allocator {
    pub(super) fn have_slots(&self) -> bool {
        matches!(self, Allocator::Slots(_))
    }

    /// The books of a fixed arena.
    #[inline]
    pub(crate) fn slots(&self) -> &SlotBitmap {
        match self {
            Allocator::Slots(map) => map,
            Allocator::Blocks(_) => unreachable!("a fixed arena allocator slots"),
        }
    }

    /// The books of a buddy arena.
    #[inline]
    pub(crate) fn blocks(&self) -> &BuddyAllocator {
        match self {
            Allocator::Blocks(map) => map,
            Allocator::Slots(_) => unreachable!("a buddy arena allocator blocks"),
        }
    }

    /// Headers that the mode needs: one a slot, or one a smallest block.
    pub(super) fn header_count(&self) -> usize {
        match self {
            Allocator::Slots(map) => map.slot_count(),
            Allocator::Blocks(map) => map.unit_count(),
        }
    }

    /// Slots of equal size, if the arena has such.
    pub(crate) fn slot_count(&self) -> Option<usize> {
        match self {
            Allocator::Slots(map) => Some(map.slot_count()),
            Allocator::Blocks(_) => None,
        }
    }

    pub(super) fn header_stride(&self) -> usize {
        match self {
            Allocator::Slots(_) => size_of::<HeaderLine>(),
            Allocator::Blocks(_) => size_of::<Header>(),
        }
    }

    /// Words that must drain before a closed arena is given back.
    pub(super) fn word_count(&self) -> usize {
        match self {
            Allocator::Slots(map) => map.word_count(),
            Allocator::Blocks(map) => map.word_count(),
        }
    }

    /// Closes every word; returns how many were drained already.
    pub(super) fn close(&self) -> usize {
        match self {
            Allocator::Slots(map) => map.close(),
            Allocator::Blocks(map) => map.close(),
        }
    }

    /// Orders of blocks that can be waited for; equal slots are all of order 0.
    pub(super) fn orders(&self) -> usize {
        match self {
            Allocator::Slots(_) => 1,
            Allocator::Blocks(map) => map.max_order() as usize + 1,
        }
    }

    /// Frees the caller's claim of a slot, or of a block of `order`, whether or not somebody waits.
    /// Unless the caller holds a handle the books may be gone afterwards.
    pub(super) fn free_despite_waiters(&self, slot: u32, order: u32) -> FreeOutcome {
        match self {
            Allocator::Slots(map) => {
                let (word, step) = map.place_of(slot);
                free_despite_waiters(word, step)
            }
            Allocator::Blocks(map) => {
                let (word, step) = map.prepare_free(slot, order);
                free_block_despite_waiters(word, step)
            }
        }
    }

    pub(super) fn set_waiters(&self) {
        match self {
            Allocator::Slots(map) => map.set_waiters(),
            Allocator::Blocks(map) => map.set_waiters(),
        }
    }

    pub(super) fn clear_waiters(&self) {
        match self {
            Allocator::Slots(map) => map.clear_waiters(),
            Allocator::Blocks(map) => map.clear_waiters(),
        }
    }
}
