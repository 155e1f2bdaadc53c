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
use std::fmt;
use std::ops::Range;

use crate::slots::Allocator;
use crate::sync::Ordering;

/// The state of a slot, or block, that has an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SlotState {
    /// A buffer, which the program may write.
    Held,
    /// A slot that lies ready in a buffer ring of the driver that was asked.
    Ready,
    /// A slot in a read, write or send of the driver that was asked.
    InFlight,
    /// Bytes, which the program may only read.
    Frozen,
    /// A slot that is lost for good.
    Quarantined,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SlotState::Held => "held",
            SlotState::Ready => "ready",
            SlotState::InFlight => "in flight",
            SlotState::Frozen => "frozen",
            SlotState::Quarantined => "quarantined",
        })
    }
}

/// A claimed slot, or block, as its header describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedSlot {
    /// The index of the slot, or of the first smallest block.
    pub(crate) first: u32,
    /// The number of smallest blocks in the block; 1 for a slot.
    pub(crate) min_blocks: u64,
    pub(crate) frozen: bool,
    pub(crate) quarantined: bool,
    /// The claim is recorded.
    #[cfg(feature = "holders")]
    pub(crate) tracked: bool,
    /// The number of claims of the slot, with this one.
    #[cfg(feature = "holders")]
    pub(crate) claims: u32,
}

impl ClaimedSlot {
    /// Returns the state. `on_ring` returns that of a slot that a ring or an operation has.
    pub(crate) fn state(
        &self,
        on_ring: impl FnOnce(&ClaimedSlot) -> Option<SlotState>,
    ) -> SlotState {
        match on_ring(self) {
            _ if self.quarantined => SlotState::Quarantined,
            Some(state) => state,
            None if self.frozen => SlotState::Frozen,
            None => SlotState::Held,
        }
    }
}

impl Handle {
    fn header(&self, index: u32) -> &Header {
        // SAFETY: the core is live (invariant of a handle), and the allocator has only indices that
        // have headers.
        let header = unsafe { Core::header_at(self.core, index) };
        // SAFETY: headers live as long as the core, which this handle keeps, and are all atomics.
        unsafe { header.as_ref() }
    }

    /// Runs code in which a model has the bytes of a slot alone.
    #[cfg(uring_arena_loom)]
    pub(super) fn with_bytes_of(&self, index: u32, code: impl FnOnce()) {
        self.header(index).bytes.with_mut(|_| code());
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
            each(ClaimedSlot {
                first,
                min_blocks,
                frozen,
                quarantined,
                #[cfg(feature = "holders")]
                tracked: header.is_tracked(),
                #[cfg(feature = "holders")]
                claims: header.claims(),
            });
        };
        match &self.allocator {
            Allocator::Slots(bitmap) => bitmap.for_each_claimed(|slot| claimed(slot, 1)),
            Allocator::Blocks(buddy) => {
                buddy.for_each_claimed(|first| self.header(first).order().into(), claimed)
            }
        }
    }

    /// Counts the slots, or smallest blocks, that are claimed now, and notes the count for the
    /// high-water mark.
    pub(crate) fn note_live(&self) -> usize {
        let live = match &self.allocator {
            Allocator::Slots(bitmap) => bitmap.live(),
            Allocator::Blocks(buddy) => buddy.live_min_blocks() as usize,
        };
        self.note_live_count(live);
        live
    }

    /// Notes that `live` slots, or smallest blocks, were claimed at one time.
    pub(crate) fn note_live_count(&self, live: usize) {
        // Relaxed, as all here. The load spares most calls the write.
        if live > self.counters.live_max.load(Ordering::Relaxed) {
            self.counters.live_max.fetch_max(live, Ordering::Relaxed);
        }
    }

    /// Tells the log that claims wait, once a second at most.
    pub(super) fn tell_of_wait(&self) {
        if cfg!(uring_arena_loom) || !self.counters.wait_events.is_due() {
            return;
        }
        // Relaxed: it only pairs two events.
        self.counters.is_wait_told.store(1, Ordering::Relaxed);
        let waits = self.waiters.counts();
        tracing::info!(
            waiters = waits.waiters,
            slots = self.index_count(),
            slot_bytes = self.slot_bytes,
            refusals = self.waiters.refusals(),
            "claims wait for memory of an arena: drop buffers sooner, or build a larger arena (`holders` tells who has it)"
        );
    }

    /// Tells the log that nobody waits any more, if it was told that somebody does.
    pub(super) fn tell_of_end_of_wait(&self) {
        if cfg!(uring_arena_loom) || self.counters.is_wait_told.load(Ordering::Relaxed) == 0 {
            return;
        }
        let waits = self.waiters.counts();
        // The swap makes it one event.
        if waits.waiters == 0 && self.counters.is_wait_told.swap(0, Ordering::Relaxed) == 1 {
            tracing::info!(
                waits = waits.waits,
                longest_wait_ms = waits.longest_wait.as_millis() as u64,
                slots = self.index_count(),
                "no claim waits for memory of the arena any more"
            );
        }
    }

    /// Returns the most slots, or smallest blocks, that were known to be claimed at one time.
    ///
    /// A fixed arena that refused a claim had none left.
    pub(crate) fn live_max(&self) -> usize {
        let was_full = || self.waiters.refusals() > 0 || self.waiters.counts().was_full;
        if self.allocator.has_slots() && was_full() {
            return self.index_count();
        }
        self.counters.live_max.load(Ordering::Relaxed)
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
