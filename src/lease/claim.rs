//! Claims: from an index of the allocator to a lease.
//!
//! # Safety
//!
//! Unsafe here: reaching headers through the pointer of a handle's core. The handle keeps the core
//! live, and the allocator gives out only indices that have headers.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::core::Core;
use super::handle::Handle;
use super::header::{Header, HeaderLine, is_rare};
#[cfg(feature = "holders")]
use super::holder_table::HolderTable;
use super::holder_table::Place;
use super::lease::Lease;
use crate::region::scrub;
use crate::slots::{Allocator, Search, SlotGroup};
use crate::sync::Ordering;

impl Handle {
    /// Claims a slot, and returns its lease and its first byte.
    ///
    /// Returns `None` only if there was an instant during the call at which no slot was free.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim_slot(&self, place: Place) -> Option<(Lease, NonNull<u8>)> {
        let slot = match self.allocator.slots().claim_hinted() {
            Some(slot) => slot,
            None => self.claim_slow(0)?,
        };
        // SAFETY: just claimed, so this is its only lease.
        Some(unsafe { self.own_slot(slot, place) })
    }

    /// Claims a slot as [`claim_slot`](Self::claim_slot) does, for a caller that waits if there is
    /// none: `None` proves nothing.
    #[inline]
    pub(crate) fn try_claim_slot(&self, place: Place) -> Option<(Lease, NonNull<u8>)> {
        let bitmap = self.allocator.slots();
        let slot = bitmap.claim_hinted().or_else(|| bitmap.look(1).map(SlotGroup::lowest))?;
        // SAFETY: just claimed, so this is its only lease.
        Some(unsafe { self.own_slot(slot, place) })
    }

    /// Makes the lease of a claimed slot. Also returns its first byte.
    ///
    /// # Safety
    ///
    /// The slot is claimed, has no lease, and is the caller's.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn own_slot(&self, slot: u32, place: Place) -> (Lease, NonNull<u8>) {
        // SAFETY: the core is live (invariant), and the allocator gives out only slots that exist.
        let header = unsafe { Core::slot_header_at(self.core, slot) };
        // SAFETY: the caller's promise.
        let lease = unsafe { self.slot_lease(header, slot) };
        // SAFETY: the header of the slot, which the caller has.
        unsafe { self.track(header, slot, place) };
        (lease, self.slot_start(slot))
    }

    /// Claims up to `wanted` slots, and hands each to `each` with its first byte and its index.
    ///
    /// Returns the number of slots. That it is less than `wanted` proves nothing.
    #[inline] // into its few callers, so that what `each` keeps stays in registers
    pub(crate) fn claim_slots(
        &self,
        wanted: usize,
        place: Place,
        mut each: impl FnMut(Lease, NonNull<u8>, u32),
    ) -> usize {
        let bitmap = self.allocator.slots();
        let mut claimed = 0;
        while claimed < wanted {
            let left = wanted - claimed;
            let group = bitmap.claim_many_hinted(left).or_else(|| bitmap.look(left));
            let Some(SlotGroup { first, mask }) = group else { break };
            claimed += mask.count_ones() as usize;
            let (start, slot_bytes) = (self.slot_start(first), self.slot_bytes);
            for (lease, bit) in Claimed::new(self, first, mask, place) {
                // SAFETY: the slots that the allocator has lie inside the region.
                let start = unsafe { start.add(bit as usize * slot_bytes) };
                each(lease, start, first + bit);
            }
        }
        claimed
    }

    /// Claims a block of `1 << order` smallest blocks, and returns its lease and its first byte.
    ///
    /// Returns `None` only if there was an instant during the call at which no such block was free.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim_block(&self, order: u32, place: Place) -> Option<(Lease, NonNull<u8>)> {
        let first = match self.allocator.blocks().claim_hinted(order) {
            Some(first) => first,
            None => self.claim_slow(order)?,
        };
        // SAFETY: just claimed, so this is its only lease.
        Some(unsafe { self.own_block(first, order, place) })
    }

    /// Claims a block as [`claim_block`](Self::claim_block) does, for a caller that waits if there
    /// is none: `None` proves nothing.
    #[inline]
    pub(crate) fn try_claim_block(&self, order: u32, place: Place) -> Option<(Lease, NonNull<u8>)> {
        let buddy = self.allocator.blocks();
        let first = buddy.claim_hinted(order).or_else(|| buddy.search_by_hints(order))?;
        // SAFETY: just claimed, so this is its only lease.
        Some(unsafe { self.own_block(first, order, place) })
    }

    /// Makes the lease of a claimed block of `order`. Also returns its first byte.
    ///
    /// # Safety
    ///
    /// The block at `first` is claimed, has no lease, and is the caller's.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn own_block(&self, first: u32, order: u32, place: Place) -> (Lease, NonNull<u8>) {
        // SAFETY: the core is live (invariant), and the block is claimed (the caller's promise).
        let header = unsafe { Core::record_order(self.core, first, order) };
        // SAFETY: the caller's promise.
        let lease = unsafe { self.block_lease(header, first, order) };
        // SAFETY: the header of the block, which the caller has.
        unsafe { self.track(header, first, place) };
        (lease, self.slot_start(first))
    }

    /// Claims a slot, or a block of `order`, by a search. Returns its index, or that of its first
    /// smallest block.
    ///
    /// At most three passes over the allocator, whatever others do: two that may prove that nothing
    /// was free, and one while frees stand still. A fourth is made only if a block was seen in the
    /// third and claimed by another thread.
    #[cold]
    #[inline(never)]
    fn claim_slow(&self, order: u32) -> Option<u32> {
        match self.allocator.search(order) {
            Search::Found(first) => Some(first),
            Search::Full => None,
            Search::Unsettled => self.waiters.claim_still(&self.allocator, order),
        }
    }

    /// Records the order of a block that the queue claimed, beside the block.
    pub(super) fn record_order(&self, first: u32, order: u32) {
        // SAFETY: the core is live (invariant), and the block is claimed.
        unsafe { Core::record_order(self.core, first, order) };
    }

    /// Makes the lease of a claimed block of `order`.
    ///
    /// # Safety
    ///
    /// The block at `first` is claimed, has no lease, and is the caller's; `header` is its header.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn block_lease(&self, header: NonNull<Header>, first: u32, order: u32) -> Lease {
        // SAFETY: the caller's promise.
        let lease = unsafe { self.lease(header, first) };
        if self.scrubs() && !self.region.known_zero() {
            self.scrub_first_use(&lease, first, order);
        }
        lease
    }

    /// Zeroes the smallest blocks that nobody has had before. The others were scrubbed when they
    /// were freed.
    #[cold]
    fn scrub_first_use(&self, lease: &Lease, first: u32, order: u32) {
        for number in 0..1u32 << order {
            // SAFETY: inside the block just claimed.
            let header = unsafe { Core::header_at(self.core, first + number) };
            // SAFETY: headers live as long as the core, and the block is ours alone.
            if unsafe { header.as_ref() }.mark_used() {
                continue;
            }
            // SAFETY: the smallest block lies in the block.
            let start = unsafe { lease.slot_start().add(number as usize * self.slot_bytes) };
            // SAFETY: the lease owns these bytes alone.
            unsafe { scrub(start, self.slot_bytes) };
        }
    }

    /// Records a claim that was just made, if it is one of those that are to be recorded.
    ///
    /// # Safety
    ///
    /// `header` is that of slot, or block, `index`, which the caller has claimed.
    #[inline(always)] // see `FixedArena::allocate`
    pub(super) unsafe fn track(&self, header: NonNull<Header>, index: u32, place: Place) {
        #[cfg(feature = "holders")]
        if let Some(table) = &self.holders {
            // SAFETY: headers live as long as the core, and are all atomics.
            let header = unsafe { header.as_ref() };
            if table.is_due(header.claims(), index) {
                record_holder(table, header, index, place);
            }
        }
        #[cfg(not(feature = "holders"))]
        let _ = (header, index, place);
    }

    /// Returns whether some claims are recorded.
    #[cfg(feature = "holders")]
    #[inline]
    pub(super) fn tracks_holders(&self) -> bool {
        self.holders.is_some()
    }

    /// Makes the lease of a slot, or block of `order`, off the fast path.
    ///
    /// # Safety
    ///
    /// `slot` is claimed, has no lease, and is the caller's.
    pub(super) unsafe fn granted_lease(&self, slot: u32, order: u32, place: Place) -> Lease {
        let (lease, _) = match &self.allocator {
            // SAFETY: the caller's promise.
            Allocator::Slots(_) => unsafe { self.own_slot(slot, place) },
            // SAFETY: the caller's promise.
            Allocator::Blocks(_) => unsafe { self.own_block(slot, order, place) },
        };
        lease
    }

    /// Makes the lease of a claimed slot.
    ///
    /// # Safety
    ///
    /// As for [`lease`](Self::lease), and the arena has slots.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn slot_lease(&self, header: NonNull<Header>, slot: u32) -> Lease {
        // SAFETY: the caller's promise.
        let lease = unsafe { self.lease(header, slot) };
        // A slot has no order to keep: this clears the mark that an earlier owner froze it.
        lease.header().set_order(0);
        lease
    }

    /// Makes the lease of a claimed slot, or of a claimed block whose order is recorded.
    ///
    /// # Safety
    ///
    /// `header` is that of `slot`, which was claimed and has no lease yet.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn lease(&self, header: NonNull<Header>, slot: u32) -> Lease {
        // SAFETY: the slot is ours alone since its claim.
        let lease = unsafe { Lease::from_raw(header) };
        let claims = lease.header().record_claim();
        if is_rare(claims) {
            return self.complete_rare_claim(lease, slot, claims);
        }
        lease
    }

    /// Counts 2³² claims of a slot whose own count has wrapped.
    #[cold]
    pub(super) fn carry_claims(&self) {
        // Relaxed: a counter.
        self.counters.claims_carried.fetch_add(1 << 32, Ordering::Relaxed);
    }

    /// Completes the first claim of a slot, the one at which the count of claims wraps, and the few
    /// at which a thread looks whether it went astray.
    #[cold]
    fn complete_rare_claim(&self, lease: Lease, slot: u32, claims: u32) -> Lease {
        if claims != 1 {
            if claims == 0 {
                self.carry_claims();
            }
            match &self.allocator {
                Allocator::Slots(bitmap) => bitmap.go_home(),
                Allocator::Blocks(buddy) => {
                    let header = lease.header();
                    if buddy.go_home(slot, header.order().into()) {
                        header.forget_free();
                    }
                }
            }
            return lease;
        }
        lease.header().set_core_offset_and_flags(self.core_offset_and_flags(slot));
        if let Some(line) = lease.line() {
            let (word, free) = self.allocator.slots().prepare_free(slot);
            line.set_free(word, free);
            if self.scrubs() && !self.region.known_zero() {
                // SAFETY: the lease owns these bytes alone.
                unsafe { scrub(lease.slot_start(), lease.slot_bytes()) };
            }
        }
        lease
    }
}

#[cfg(feature = "holders")]
#[cold]
#[inline(never)]
fn record_holder(table: &HolderTable, header: &Header, index: u32, place: Place) {
    table.record(index, header.claims(), place);
    header.set_tracked();
}

/// The slots of one word that were claimed together, as an iterator over their leases.
///
/// A drop frees the slots that were not taken out, so that a caller's panic loses none.
// Invariant: the slots in `mask`, counted from `first`, are claimed and have no lease yet; `header`
// is that of `first`.
struct Claimed<'a> {
    handle: &'a Handle,
    header: NonNull<HeaderLine>,
    first: u32,
    mask: u32,
    place: Place,
}

impl Claimed<'_> {
    #[inline]
    fn new(handle: &Handle, first: u32, mask: u32, place: Place) -> Claimed<'_> {
        // SAFETY: the handle keeps the core live, and every word has a first slot.
        let header = unsafe { Core::slot_header_at(handle.core, first) }.cast();
        Claimed { handle, header, first, mask, place }
    }
}

impl Iterator for Claimed<'_> {
    /// A lease, and the number of its slot from the first.
    type Item = (Lease, u32);

    #[inline]
    fn next(&mut self) -> Option<(Lease, u32)> {
        if self.mask == 0 {
            return None;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        // SAFETY: the allocator gives out only slots that exist, and the headers of a core's slots
        // lie side by side.
        let header = unsafe { self.header.add(bit as usize) }.cast();
        // SAFETY: claimed and without a lease (invariant), and out of the mask now.
        let lease = unsafe { self.handle.slot_lease(header, self.first + bit) };
        // SAFETY: the header of the slot, which this value had claimed.
        unsafe { self.handle.track(header, self.first + bit, self.place) };
        Some((lease, bit))
    }
}

impl Drop for Claimed<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.mask != 0 {
            self.for_each(drop);
        }
    }
}
