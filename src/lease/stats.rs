//! The numbers of an arena, read from all of its headers.
//!
//! # Safety
//!
//! Unsafe here: reaching headers through the core's pointer. The handle keeps the core live, and
//! the allocator has only slots and smallest blocks that have headers.
#![allow(unsafe_code)]

use super::core::Core;
use super::handle::Handle;
use super::header::Header;
use super::run::run_around;
use std::ops::Range;

use crate::slots::Allocator;
use crate::sync::Ordering;

/// A claimed slot, or block, as its header describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedSlot {
    /// The index of the slot, or of the first smallest block.
    pub(crate) first: u32,
    /// The number of smallest blocks in the block; 1 for a slot.
    pub(crate) min_blocks: u64,
    pub(crate) frozen: bool,
    pub(crate) quarantined: bool,
}

impl Handle {
    fn header(&self, index: u32) -> &Header {
        // SAFETY: the core is live (invariant of a handle), and the allocator has only indices that
        // have headers.
        let header = unsafe { Core::header_at(self.core, index) };
        // SAFETY: headers live as long as the core, which this handle keeps, and are all atomics.
        unsafe { header.as_ref() }
    }

    /// Counts the successful claims so far. The count is exact while no claim is under way.
    pub(crate) fn claims(&self) -> u64 {
        // Relaxed, as all here: counters.
        let carried = self.counters.claims_carried.load(Ordering::Relaxed);
        carried + self.sum_headers(|header| header.claims().into())
    }

    /// Counts the freezes so far that kept the slot.
    pub(crate) fn frozen(&self) -> u64 {
        let carried = self.counters.frozen_carried.load(Ordering::Relaxed);
        carried + self.sum_headers(|header| header.frozen().into())
    }

    fn sum_headers(&self, count: impl Fn(&Header) -> u64) -> u64 {
        (0..self.index_count()).map(|index| count(self.header(index as u32))).sum()
    }

    /// Counts the claimed blocks. The count is exact while nobody claims or frees.
    pub(crate) fn live_blocks(&self) -> u64 {
        let mut blocks = 0;
        self.allocator
            .blocks()
            .for_each_claimed(|first| self.header(first).order().into(), |_, _| blocks += 1);
        blocks
    }

    /// Hands every claimed slot, or block, to `each`.
    ///
    /// The claims in one word are those of one instant. The header of each is read some moment
    /// later.
    pub(crate) fn for_each_claimed(&self, mut each: impl FnMut(ClaimedSlot)) {
        let mut claimed = |first, min_blocks| {
            let header = self.header(first);
            let (frozen, quarantined) = (header.is_frozen(), header.is_quarantined());
            each(ClaimedSlot { first, min_blocks, frozen, quarantined });
        };
        match &self.allocator {
            Allocator::Slots(bitmap) => bitmap.for_each_claimed(|slot| claimed(slot, 1)),
            Allocator::Blocks(buddy) => {
                buddy.for_each_claimed(|first| self.header(first).order().into(), claimed)
            }
        }
    }

    /// Returns the index of the slot, or smallest block, that holds `address`.
    pub(crate) fn index_of_address(&self, address: usize) -> Option<u32> {
        let index = address.checked_sub(self.region.start().addr().get())? / self.slot_bytes;
        (index < self.index_count()).then_some(index as u32)
    }

    /// Returns the indices of the slots whose owner has `address`, or the smallest block that holds
    /// it. Returns none if `address` is not of this arena.
    pub(crate) fn indices_of_address(&self, address: usize) -> Range<u32> {
        let Some(index) = self.index_of_address(address) else { return 0..0 };
        if !self.allocator.has_slots() {
            return index..index + 1;
        }
        // SAFETY: the core is live (invariant of a handle), and the slot exists.
        let header = unsafe { Core::header_at(self.core, index) };
        // SAFETY: the header of a slot, on a core that the handle keeps live.
        let (before, count) = unsafe { run_around(header) };
        index - before..index - before + count
    }

    /// Returns the number of slots of a fixed arena, or of smallest blocks of a buddy arena.
    pub(crate) fn index_count(&self) -> usize {
        self.allocator.index_count()
    }
}
