//! The lease: exactly one owner of a claimed slot.
//!
//! # Safety
//!
//! Unsafe here: reaching header and core through the lease's pointer.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::allocator::Allocator;
use super::core::Core;
use super::header::{Header, HeaderLine, LINE, ZERO};
use super::lifetime;
use crate::region::scrub;
use crate::sync::Ordering;

/// The claim of one slot, or of one block.
///
/// Invariants: 1. `header` is the header of a claimed slot. 2. No other lease has it, except
/// between owners that share it by the header's count, of whom the last alone drops the lease.
/// Hence: the core and the region are live (the word of a claimed slot has not drained), and the
/// slot's bytes are the owner's.
#[repr(transparent)]
pub(crate) struct Lease {
    header: NonNull<Header>,
}

// SAFETY: a lease is memory of the process with no tie to a thread: the words order what its owners
// do (`slots::word::exchange`), and freeing works on any thread.
unsafe impl Send for Lease {}
// SAFETY: a shared lease gives a header made of atomics, addresses and numbers.
unsafe impl Sync for Lease {}

impl Lease {
    /// # Safety
    ///
    /// `header` is that of a slot just claimed, which has no lease yet.
    #[inline]
    pub(super) unsafe fn new(header: NonNull<Header>) -> Lease {
        Lease { header }
    }

    /// The lease as a pointer, for a type that packs it.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).header
    }

    /// The lease back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    ///
    /// `header` came from `into_raw`. If several owners share the slot, the result is dropped by
    /// the last of them only.
    #[inline]
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> Lease {
        Lease { header }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: live by the invariants, and all atomics.
        unsafe { self.header.as_ref() }
    }

    #[inline]
    fn core_pointer(&self) -> NonNull<Core> {
        let back = self.header().back();
        // SAFETY: the claim wrote the distance from the core of this allocation to this header.
        unsafe { self.header.byte_sub(back) }.cast()
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core {
        // SAFETY: live by the invariants.
        unsafe { self.core_pointer().as_ref() }
    }

    /// The header with what only a slot has; `None` for a block.
    #[inline]
    pub(super) fn line(&self) -> Option<&HeaderLine> {
        if !self.header().has(LINE) {
            return None;
        }
        // SAFETY: the flag says that this header begins a line, which lives as long.
        Some(unsafe { self.header.cast::<HeaderLine>().as_ref() })
    }

    /// The number of the slot (fixed mode) or of the block's first smallest block (buddy mode).
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.core().index_at(self.header().back())
    }

    /// The first byte of the slot.
    #[inline]
    pub(crate) fn slot_start(&self) -> NonNull<u8> {
        self.core().slot_start(self.index())
    }

    /// Bytes in the slot.
    #[inline]
    pub(crate) fn slot_bytes(&self) -> usize {
        let core = self.core();
        match &core.allocator {
            Allocator::Slots(_) => core.slot_bytes,
            Allocator::Blocks(_) => core.slot_bytes << self.header().order(),
        }
    }

    /// Notes that bytes up to `end`, counted from the start of the slot, may have been written:
    /// `Zero` scrubs them.
    #[inline]
    pub(crate) fn note_written(&self, end: usize) {
        if self.header().has(ZERO) {
            self.header().note_written(end);
        }
    }

    /// Notes a freeze that keeps the slot.
    #[inline]
    pub(crate) fn note_freeze(&self) {
        if self.header().note_freeze() {
            self.carry_freezes();
        }
    }

    #[cold]
    fn carry_freezes(&self) {
        // Relaxed: a counter.
        self.core().counters.frozen_carried.fetch_add(1 << 16, Ordering::Relaxed);
    }

    /// Gives up a share of a slot that may have other owners; the last one's share frees it.
    pub(crate) fn give_up_share(self) {
        if !self.header().give_up_share() {
            std::mem::forget(self);
        }
    }

    /// Never frees the slot: the kernel may still write it. The arena's memory is leaked with it.
    pub(crate) fn quarantine(self) {
        self.note_quarantine();
        std::mem::forget(self);
    }

    /// Counts the slot as lost, once. The owner that calls this never gives its share of the slot
    /// up.
    pub(crate) fn note_quarantine(&self) {
        if self.header().note_quarantine() {
            // Relaxed: a counter.
            self.core().counters.quarantined.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Zeroes what was written, where the policy asks for it.
    fn scrub_written(&self) {
        let written = self.header().take_written(self.slot_bytes());
        // SAFETY: the owner alone has these bytes, and `written` is at most the slot.
        unsafe { scrub(self.slot_start(), written) };
    }

    /// Makes the slot useless to a late reader, unless it is about to be zeroed.
    fn poison(&self) {
        if !self.header().has(ZERO) {
            // SAFETY: the owner alone has these bytes.
            unsafe {
                self.slot_start().as_ptr().write_bytes(POISON, self.slot_bytes().min(POISONED_MAX))
            };
        }
    }

    /// Ends the lease of a slot or block of which the first `len` bytes were written last.
    #[inline]
    pub(crate) fn free_written(self, len: usize) {
        let lease = ManuallyDrop::new(self);
        // SAFETY: not used again if it was freed.
        if !unsafe { lease.free_plainly() } {
            ManuallyDrop::into_inner(lease).free_written_otherwise(len);
        }
    }

    #[inline(never)]
    fn free_written_otherwise(self, len: usize) {
        self.note_written(len);
        self.free_otherwise();
    }

    /// Frees the slot by one exchange of its word, if that is all there is to do; false, and
    /// nothing was freed, otherwise.
    ///
    /// # Safety
    ///
    /// The lease is not used again, and not dropped, if it was freed.
    #[inline]
    unsafe fn free_plainly(&self) -> bool {
        #[cfg(uring_arena_loom)]
        self.header().bytes.with_mut(|_| ());
        if cfg!(debug_assertions) {
            self.poison();
        }
        // SAFETY: the lease owns the claim (invariant 2), and ends with it (the caller's promise).
        unsafe { lifetime::free_plainly(self.header) }
    }

    /// The free that is more than that.
    #[inline(never)]
    fn free_otherwise(self) {
        let lease = ManuallyDrop::new(self);
        if lease.header().has(ZERO) {
            lease.scrub_written();
        }
        // SAFETY: the lease owns the claim (invariant 2) and ends here.
        unsafe { lifetime::free(lease.header) }
    }
}

/// What debug builds fill freed slots with, so that a late reader stands out.
const POISON: u8 = 0xDB;

/// No more than this much of a slot, so that debug builds of programs with huge slots still move.
const POISONED_MAX: usize = 64 << 10;

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lease ends here if it was freed.
        if !unsafe { self.free_plainly() } {
            // The claim goes on in a lease that ends otherwise.
            Lease { header: self.header }.free_otherwise();
        }
    }
}
