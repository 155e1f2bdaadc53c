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
#[cfg(not(feature = "holders"))]
use super::header::RARE;
use super::header::{Header, HeaderLine, is_rare};
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
        (unsafe { self.slot_lease(header, slot, place) }, self.slot_start(slot))
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
        (unsafe { self.block_lease(header, first, order, place) }, self.slot_start(first))
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
    unsafe fn block_lease(
        &self,
        header: NonNull<Header>,
        first: u32,
        order: u32,
        place: Place,
    ) -> Lease {
        // SAFETY: the block is ours alone since its claim.
        let lease = unsafe { Lease::from_raw(header) };
        let lease = self.count_claim(lease, first, place);
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
    /// `header` is that of `slot`, which was claimed and has no lease yet; the arena has slots.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn slot_lease(&self, header: NonNull<Header>, slot: u32, place: Place) -> Lease {
        // SAFETY: the slot is ours alone since its claim.
        let lease = unsafe { Lease::from_raw(header) };
        // A slot has no order to keep: this clears the marks of an earlier owner, that it froze the
        // slot and that its claim was recorded.
        lease.header().set_order(0);
        self.count_claim(lease, slot, place)
    }

    /// Counts a claim whose order is set. The few that want more than the count go elsewhere.
    #[inline(always)] // see `FixedArena::allocate`
    fn count_claim(&self, lease: Lease, slot: u32, place: Place) -> Lease {
        let claims = lease.header().record_claim();
        if claims & self.rare_claims() == 0 {
            return self.complete_rare_claim(lease, slot, claims, place);
        }
        lease
    }

    /// Counts a claim of a slot of a batch, which has been claimed of the arena before.
    #[inline(always)] // see `FixedArena::allocate`
    pub(super) fn count_batch_claim(&self, lease: Lease, place: Place) -> Lease {
        let claims = lease.header().record_claim();
        let is_rare = match cfg!(feature = "holders") {
            true => claims & self.rare_claims() == 0,
            false => claims == 0,
        };
        if is_rare {
            return self.complete_rare_batch_claim(lease, claims, place);
        }
        lease
    }

    /// Returns the bits of a count of claims that are zero at rare claims: see
    /// [`is_rare`](super::header::is_rare).
    ///
    /// An arena that records holders has fewer such bits, or none: each claim that is to be
    /// recorded is rare. So one that records none pays nothing.
    #[inline(always)] // see `FixedArena::allocate`
    fn rare_claims(&self) -> u32 {
        #[cfg(feature = "holders")]
        return self.rare_claims;
        #[cfg(not(feature = "holders"))]
        RARE
    }

    /// Carries 2³² claims of a slot whose own count has wrapped, less what the count is ahead.
    fn carry_claims(&self, header: &Header, slot: u32) {
        let ahead = self.claims_ahead(slot);
        let mut carried = 1 << 32;
        if ahead > 0 {
            carried -= u64::from(header.set_claims(ahead + 1));
        }
        // Relaxed: a counter.
        self.counters.claims_carried.fetch_add(carried, Ordering::Relaxed);
    }

    #[cold]
    fn complete_rare_batch_claim(&self, lease: Lease, claims: u32, place: Place) -> Lease {
        let slot = lease.index();
        if claims == 0 {
            self.carry_claims(lease.header(), slot);
        }
        self.record_if_due(&lease, slot, place);
        lease
    }

    /// Records a claim, if it is one of those that are to be recorded. Its count is as it stays.
    fn record_if_due(&self, lease: &Lease, slot: u32, place: Place) {
        #[cfg(feature = "holders")]
        if let Some(table) = &self.holders
            && table.is_due(lease.header().claims())
        {
            table.record(slot, lease.header().claims(), place);
            lease.header().set_tracked();
        }
        #[cfg(not(feature = "holders"))]
        let _ = (lease, slot, place);
    }

    /// Completes the first claim of a slot, the one at which the count of claims wraps, the few at
    /// which a thread looks whether it went astray, and those that are to be recorded.
    #[cold]
    fn complete_rare_claim(&self, lease: Lease, slot: u32, claims: u32, place: Place) -> Lease {
        match claims {
            1 => self.complete_first_claim(&lease, slot),
            0 => self.carry_claims(lease.header(), slot),
            _ => {}
        }
        if claims != 1 && is_rare(claims) {
            match &self.allocator {
                Allocator::Slots(bitmap) => bitmap.go_home(),
                Allocator::Blocks(buddy) => {
                    let header = lease.header();
                    if buddy.go_home(slot, header.order().into()) {
                        header.forget_free();
                    }
                }
            }
        }
        self.record_if_due(&lease, slot, place);
        lease
    }

    /// Completes the first claim of a slot.
    fn complete_first_claim(&self, lease: &Lease, slot: u32) {
        let ahead = self.claims_ahead(slot);
        if ahead > 0 {
            lease.header().set_claims(ahead + 1);
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
    }
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
        let lease = unsafe { self.handle.slot_lease(header, self.first + bit, self.place) };
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
