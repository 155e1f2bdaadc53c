//! A handle: what keeps an arena open.
//!
//! # Safety
//!
//! Unsafe here: reaching the core through its pointer. A handle counts in `Core::handles`, so the
//! core is live while it exists.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::ptr::NonNull;

use super::core::{Core, CoreOptions};
use super::header::{Header, HeaderLine};
use super::lease::Lease;
use super::lifetime;
use crate::error::BuildError;
use crate::region::{Region, scrub};
use crate::sync::Ordering;

/// One of the handles of an arena. Invariant: counted in the core's `handles`.
pub(crate) struct Handle {
    pub(super) core: NonNull<Core>,
}

// SAFETY: a `Core` is Send + Sync (its region and books are, the rest are atomics; pinned below),
// and the last handle may close it on any thread: what other threads did before is ordered by the
// count (`lifetime::drop_handle`).
unsafe impl Send for Handle {}
// SAFETY: a shared handle gives a shared core.
unsafe impl Sync for Handle {}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Core>();
};

impl Handle {
    /// Builds an arena and gives its first handle.
    pub(crate) fn new(
        plan: CoreOptions,
        region: impl FnOnce() -> Result<Region, BuildError>,
    ) -> Result<Handle, BuildError> {
        Core::create(plan, region).map(|core| Handle { core })
    }

    /// One more handle of an arena that a claim keeps alive, unless the last one is gone.
    ///
    /// # Safety
    ///
    /// `core` is live during the call.
    pub(super) unsafe fn upgrade(core: NonNull<Core>) -> Option<Handle> {
        // SAFETY: live (the caller's promise).
        let handles = unsafe { &core.as_ref().counters.handles };
        let mut seen = handles.load(Ordering::Relaxed);
        while seen > 0 {
            // Relaxed: the count alone decides; what the core holds is seen through the claim.
            match handles.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Handle { core }),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Claims a slot; gives its lease and its first byte. `None` only if there was an instant at
    /// which none was free.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim_slot(&self) -> Option<(Lease, NonNull<u8>)> {
        let map = self.allocator.slots();
        let slot = map.claim()?;
        // SAFETY: the core is live (invariant), and the books give out only slots that exist.
        let header = unsafe { Core::slot_header_at(self.core, slot) };
        // SAFETY: just claimed, so this is its only lease.
        Some((unsafe { self.slot_lease(header, slot) }, self.slot_start(slot)))
    }

    /// Claims up to `wanted` slots and hands each, with its first byte, to `each`; returns how
    /// many.
    #[inline] // into its few callers, so that what `each` keeps stays in registers
    pub(crate) fn claim_slots(
        &self,
        wanted: usize,
        mut each: impl FnMut(Lease, NonNull<u8>, u32),
    ) -> usize {
        let mut claimed = 0;
        while claimed < wanted {
            let Some((first, mask)) = self.allocator.slots().claim_many(wanted - claimed) else {
                break;
            };
            claimed += mask.count_ones() as usize;
            let (start, slot_bytes) = (self.slot_start(first), self.slot_bytes);
            for (lease, bit) in Claimed::new(self, first, mask) {
                // SAFETY: the slots that the books number lie inside the region.
                let start = unsafe { start.add(bit as usize * slot_bytes) };
                each(lease, start, first + bit);
            }
        }
        claimed
    }

    /// Claims a block of `1 << order` smallest blocks. `None` only if there was an instant at which
    /// no such block was free.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim_block(&self, order: u32) -> Option<(Lease, NonNull<u8>)> {
        let first = self.allocator.blocks().claim(order)?;
        let header = self.note_order(first, order);
        // SAFETY: just claimed, so this is its only lease.
        let lease = unsafe { self.block_lease(header, first, order) };
        Some((lease, self.slot_start(first)))
    }

    /// Writes the order of a block that the caller has just claimed beside it; gives its header.
    #[inline]
    pub(super) fn note_order(&self, first: u32, order: u32) -> NonNull<Header> {
        // SAFETY: the books give out only blocks that exist.
        let header = unsafe { Core::header_at(self.core, first) };
        // SAFETY: headers live as long as the core, and the block is the caller's alone since its
        // claim.
        unsafe { header.as_ref() }.set_order(order as u8);
        header
    }

    /// Makes the lease of a block of `order` that is claimed.
    ///
    /// # Safety
    ///
    /// The block at `first` is claimed, has no lease, and is the caller's; `header` is its header.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn block_lease(&self, header: NonNull<Header>, first: u32, order: u32) -> Lease {
        // SAFETY: the caller's promise.
        let lease = unsafe { self.lease(header, first) };
        if self.scrubs() && !self.region.known_zero() {
            self.clean_first_use(&lease, first, order);
        }
        lease
    }

    /// Zeroes those smallest blocks that nobody has had before: later ones are cleaned when they
    /// are freed.
    #[cold]
    fn clean_first_use(&self, lease: &Lease, first: u32, order: u32) {
        for unit in 0..1u32 << order {
            // SAFETY: inside the block just claimed.
            let header = unsafe { Core::header_at(self.core, first + unit) };
            // SAFETY: headers live as long as the core, and the block is ours alone.
            if unsafe { header.as_ref() }.note_used() {
                continue;
            }
            // SAFETY: the unit lies in the block.
            let start = unsafe { lease.slot_start().add(unit as usize * self.slot_bytes) };
            // SAFETY: the lease owns these bytes alone.
            unsafe { scrub(start, self.slot_bytes) };
        }
    }

    /// Makes the lease of a slot or block that was kept for the caller while it waited.
    ///
    /// # Safety
    ///
    /// `slot` is claimed, has no lease, and is the caller's.
    pub(super) unsafe fn kept_lease(&self, slot: u32, order: u32) -> Lease {
        if self.allocator.have_slots() {
            // SAFETY: the core is live (invariant), and the books give out only slots that exist.
            let header = unsafe { Core::slot_header_at(self.core, slot) };
            // SAFETY: the caller's promise.
            return unsafe { self.slot_lease(header, slot) };
        }
        let header = self.note_order(slot, order);
        // SAFETY: the caller's promise.
        unsafe { self.block_lease(header, slot, order) }
    }

    /// Makes the lease of a slot that the books have just given out.
    ///
    /// # Safety
    ///
    /// As for [`lease`](Self::lease), and the arena has slots.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn slot_lease(&self, header: NonNull<Header>, slot: u32) -> Lease {
        // SAFETY: the caller's promise.
        let lease = unsafe { self.lease(header, slot) };
        lease.header().note_slot_claimed();
        lease
    }

    /// Makes the lease of a slot, or block, that the books have just given out. The order of a
    /// block is noted already.
    ///
    /// # Safety
    ///
    /// `header` is that of `slot`, which was claimed and has no lease yet.
    #[inline(always)] // see `FixedArena::allocate`
    unsafe fn lease(&self, header: NonNull<Header>, slot: u32) -> Lease {
        // SAFETY: the slot is ours alone since its claim.
        let lease = unsafe { Lease::new(header) };
        let claims = lease.header().note_claim();
        if claims <= 1 {
            return self.note_rare_claim(lease, slot, claims);
        }
        lease
    }

    /// The first claim of a slot, or the one at which the count of its claims starts again.
    #[cold]
    fn note_rare_claim(&self, lease: Lease, slot: u32, claims: u32) -> Lease {
        if claims == 0 {
            // Relaxed: a counter.
            self.counters.claims_carried.fetch_add(1 << 32, Ordering::Relaxed);
            return lease;
        }
        lease.header().set_home(self.back_and_flags(slot));
        if let Some(line) = lease.line() {
            let (word, step) = self.allocator.slots().place_of(slot);
            line.set_place(word, step);
            if self.scrubs() && !self.region.known_zero() {
                // SAFETY: the lease owns these bytes alone.
                unsafe { scrub(lease.slot_start(), lease.slot_bytes()) };
            }
        }
        lease
    }

    /// Whether a free zeroes what was written.
    pub(crate) fn scrubs(&self) -> bool {
        self.flags & super::header::ZERO != 0
    }

    /// Whether both are handles of one arena.
    pub(crate) fn is_same(&self, other: &Handle) -> bool {
        self.core == other.core
    }
}

/// Slots of one word, claimed together. Those not taken out are freed, so that a caller's panic
/// loses none.
///
/// Invariant: the slots in `mask`, counted from `first`, are claimed and have no lease yet;
/// `header` is that of `first`.
struct Claimed<'a> {
    handle: &'a Handle,
    header: NonNull<HeaderLine>,
    first: u32,
    mask: u32,
}

impl Claimed<'_> {
    #[inline]
    fn new(handle: &Handle, first: u32, mask: u32) -> Claimed<'_> {
        // SAFETY: the handle keeps the core live, and every word has a first slot.
        let header = unsafe { Core::slot_header_at(handle.core, first) }.cast();
        Claimed { handle, header, first, mask }
    }
}

impl Iterator for Claimed<'_> {
    /// A lease, and which slot from the first it is of.
    type Item = (Lease, u32);

    #[inline]
    fn next(&mut self) -> Option<(Lease, u32)> {
        if self.mask == 0 {
            return None;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        // SAFETY: the books give out only slots that exist, and the headers of a core's slots lie
        // side by side.
        let header = unsafe { self.header.add(bit as usize) }.cast();
        // SAFETY: claimed and without a lease (invariant), and out of the mask now.
        Some((unsafe { self.handle.slot_lease(header, self.first + bit) }, bit))
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

impl Deref for Handle {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: a handle keeps the core live (invariant).
        unsafe { self.core.as_ref() }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        // Relaxed: the handle that is cloned keeps the arena open meanwhile.
        let before = self.counters.handles.fetch_add(1, Ordering::Relaxed);
        if before > isize::MAX as usize {
            std::process::abort();
        }
        Handle { core: self.core }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this handle was counted, and is not used again.
        unsafe { lifetime::drop_handle(self.core) }
    }
}
