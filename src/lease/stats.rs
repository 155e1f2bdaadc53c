//! Looking at all headers of an arena: for its numbers.
//!
//! # Safety
//!
//! Unsafe here: reaching headers through the core's pointer. The handle keeps the core live, and
//! the books number only slots and units that have headers.
#![allow(unsafe_code)]

use super::allocator::Allocator;
use super::core::Core;
use super::handle::Handle;
use super::header::Header;
use crate::sync::Ordering;

/// What the header of a claimed slot, or block, says of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedSlot {
    /// The slot, or the first unit of the block.
    pub(crate) first: u32,
    /// Units of the block; 1 for a slot.
    pub(crate) units: u64,
    pub(crate) frozen: bool,
    pub(crate) quarantined: bool,
}

impl Handle {
    fn header(&self, index: u32) -> &Header {
        // SAFETY: the core is live (invariant of a handle), and the books number units that have
        // headers.
        let header = unsafe { Core::header_at(self.core, index) };
        // SAFETY: headers live as long as the core, which this handle keeps, and are all atomics.
        unsafe { header.as_ref() }
    }

    /// Successful claims so far: exact when no claim is under way.
    pub(crate) fn claims(&self) -> u64 {
        // Relaxed, as all here: counters.
        let carried = self.counters.claims_carried.load(Ordering::Relaxed);
        carried + self.sum_headers(|header| header.claims().into())
    }

    /// Freezes so far that kept the slot.
    pub(crate) fn frozen(&self) -> u64 {
        let carried = self.counters.frozen_carried.load(Ordering::Relaxed);
        carried + self.sum_headers(|header| header.frozen().into())
    }

    fn sum_headers(&self, of: impl Fn(&Header) -> u64) -> u64 {
        (0..self.allocator.header_count()).map(|index| of(self.header(index as u32))).sum()
    }

    /// Blocks that are claimed: exact when nobody claims or frees meanwhile.
    pub(crate) fn live_blocks(&self) -> u64 {
        let mut blocks = 0;
        self.allocator
            .blocks()
            .each_block(|first| self.header(first).order().into(), |_, _| blocks += 1);
        blocks
    }

    /// Hands every claimed slot, or block, to `each`: what is claimed as of one instant of its
    /// word, the rest as of some moment after that.
    pub(crate) fn each_owned(&self, mut each: impl FnMut(ClaimedSlot)) {
        let mut owned = |first, units| {
            let header = self.header(first);
            let (frozen, quarantined) = (header.is_frozen(), header.is_quarantined());
            each(ClaimedSlot { first, units, frozen, quarantined });
        };
        match &self.allocator {
            Allocator::Slots(map) => map.each_claimed(|slot| owned(slot, 1)),
            Allocator::Blocks(map) => {
                map.each_block(|first| self.header(first).order().into(), owned)
            }
        }
    }

    /// The slot, or smallest block, that holds `address`.
    pub(crate) fn unit_at(&self, address: usize) -> Option<u32> {
        let unit = address.checked_sub(self.region.start().addr().get())? / self.slot_bytes;
        (unit < self.unit_count()).then_some(unit as u32)
    }

    /// Slots of a fixed arena, smallest blocks of a buddy arena: free ones and claimed ones.
    pub(crate) fn unit_count(&self) -> usize {
        self.allocator.header_count()
    }
}
