//! The books of an arena, of whichever mode.

use super::header::{Header, HeaderLine};
use crate::slots::{BlockMap, Freed, SlotMap, free_block_despite_waiters, free_despite_waiters};

/// Which of the two modes books the arena.
#[allow(clippy::large_enum_variant)] // one a core, and read on every claim: no box
pub(crate) enum Books {
    /// Equal slots.
    Slots(SlotMap),
    /// Blocks of variable size.
    Blocks(BlockMap),
}

impl Books {
    pub(super) fn have_slots(&self) -> bool {
        matches!(self, Books::Slots(_))
    }

    /// The books of a fixed arena.
    #[inline]
    pub(crate) fn slots(&self) -> &SlotMap {
        match self {
            Books::Slots(map) => map,
            Books::Blocks(_) => unreachable!("a fixed arena books slots"),
        }
    }

    /// The books of a buddy arena.
    #[inline]
    pub(crate) fn blocks(&self) -> &BlockMap {
        match self {
            Books::Blocks(map) => map,
            Books::Slots(_) => unreachable!("a buddy arena books blocks"),
        }
    }

    /// Headers that the mode needs: one a slot, or one a smallest block.
    pub(super) fn header_count(&self) -> usize {
        match self {
            Books::Slots(map) => map.slot_count(),
            Books::Blocks(map) => map.unit_count(),
        }
    }

    /// Slots of equal size, if the arena has such.
    pub(crate) fn slot_count(&self) -> Option<usize> {
        match self {
            Books::Slots(map) => Some(map.slot_count()),
            Books::Blocks(_) => None,
        }
    }

    pub(super) fn header_stride(&self) -> usize {
        match self {
            Books::Slots(_) => size_of::<HeaderLine>(),
            Books::Blocks(_) => size_of::<Header>(),
        }
    }

    /// Words that must drain before a closed arena is given back.
    pub(super) fn word_count(&self) -> usize {
        match self {
            Books::Slots(map) => map.word_count(),
            Books::Blocks(map) => map.word_count(),
        }
    }

    /// Closes every word; returns how many were drained already.
    pub(super) fn close(&self) -> usize {
        match self {
            Books::Slots(map) => map.close(),
            Books::Blocks(map) => map.close(),
        }
    }

    /// Orders of blocks that can be waited for; equal slots are all of order 0.
    pub(super) fn orders(&self) -> usize {
        match self {
            Books::Slots(_) => 1,
            Books::Blocks(map) => map.max_order() as usize + 1,
        }
    }

    /// Frees the caller's claim of a slot, or of a block of `order`, whether or not somebody waits.
    /// Unless the caller holds a handle the books may be gone afterwards.
    pub(super) fn free_despite_waiters(&self, slot: u32, order: u32) -> Freed {
        match self {
            Books::Slots(map) => {
                let (word, step) = map.place_of(slot);
                free_despite_waiters(word, step)
            }
            Books::Blocks(map) => {
                let (word, step) = map.prepare_free(slot, order);
                free_block_despite_waiters(word, step)
            }
        }
    }

    pub(super) fn set_waiters(&self) {
        match self {
            Books::Slots(map) => map.set_waiters(),
            Books::Blocks(map) => map.set_waiters(),
        }
    }

    pub(super) fn clear_waiters(&self) {
        match self {
            Books::Slots(map) => map.clear_waiters(),
            Books::Blocks(map) => map.clear_waiters(),
        }
    }
}
