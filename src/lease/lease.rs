//! The lease: the one owner of a claimed slot.
//!
//! # Safety
//!
//! Unsafe here: reaching header and core through the lease's pointer, and saying that the address
//! of a slot may go to another thread.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::core::Core;
use super::free;
use super::header::{Header, HeaderLine, LINE, ZERO};
use crate::region::scrub;
use crate::slots::Allocator;
use crate::sync::Ordering;

/// The claim of one slot, or of one block. Dropping it frees the slot.
// Invariants:
// 1. `header` is the header of a claimed slot.
// 2. No other lease has it, except between owners that share the slot by the header's count. The
//    last of those alone drops the lease.
//
// Hence: the core and the region are live (the word of a claimed slot has not drained), and the
// bytes of the slot are the owner's.
#[repr(transparent)]
pub(crate) struct Lease {
    header: NonNull<Header>,
}

// SAFETY: a lease is memory of the process with no tie to a thread: the words order what its owners
// do (`slots::bitmap::exchange`), and freeing works on any thread.
unsafe impl Send for Lease {}
// SAFETY: a shared lease gives a header made of atomics, addresses and numbers.
unsafe impl Sync for Lease {}

impl Lease {
    /// Turns the lease into a pointer, for a type that packs it.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).header
    }

    /// Makes a lease from the header of a claimed slot.
    ///
    /// # Safety
    ///
    /// The slot has no lease: it was just claimed, or `header` came from
    /// [`into_raw`](Self::into_raw). If several owners share the slot, only the last of them drops
    /// the result.
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
    pub(crate) fn core(&self) -> &Core {
        let core_offset = self.header().core_offset();
        // SAFETY: the claim wrote the distance from the core of this allocation to this header.
        let core = unsafe { self.header.byte_sub(core_offset) }.cast();
        // SAFETY: live by the invariants.
        unsafe { core.as_ref() }
    }

    /// Returns the header with the fields that only a slot has, or `None` for a block.
    #[inline]
    pub(super) fn line(&self) -> Option<&HeaderLine> {
        if !self.header().has(LINE) {
            return None;
        }
        // SAFETY: the flag says that this header begins a line, which lives as long.
        Some(unsafe { self.header.cast::<HeaderLine>().as_ref() })
    }

    /// Has the free of a slot that was a batch's go to the arena again.
    pub(super) fn leave_batch(&self) {
        if let Some(line) = self.line() {
            let (word, free) = self.core().allocator.slots().prepare_free(self.index());
            line.set_free(word, free);
        }
    }

    /// Returns the index of the slot, or of the first smallest block of the block.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.core().index_at(self.header().core_offset())
    }

    /// Returns the first byte of the slot.
    #[inline]
    pub(crate) fn slot_start(&self) -> NonNull<u8> {
        self.core().slot_start(self.index())
    }

    /// Returns the number of bytes in the slot.
    #[inline]
    pub(crate) fn slot_bytes(&self) -> usize {
        let core = self.core();
        match &core.allocator {
            Allocator::Slots(_) => core.slot_bytes,
            Allocator::Blocks(_) => core.slot_bytes << self.header().order(),
        }
    }

    /// Records that bytes up to `end`, counted from the start of the slot, may have been written:
    /// `InitPolicy::Zero` scrubs them.
    #[inline]
    pub(crate) fn record_written(&self, end: usize) {
        if self.header().has(ZERO) {
            self.header().record_written(end);
        }
    }

    /// Records a freeze that keeps the slot.
    #[inline]
    pub(crate) fn record_freeze(&self) {
        if self.header().record_freeze() {
            self.carry_freezes();
        }
    }

    #[cold]
    fn carry_freezes(&self) {
        // Relaxed: a counter.
        self.core().counters.frozen_carried.fetch_add(1 << 16, Ordering::Relaxed);
    }

    /// Returns the lease, with a freeze recorded of the `len` bytes at `start` in the slot.
    ///
    /// The lease goes by value: the address of one on the stack would keep it there.
    #[inline]
    pub(crate) fn with_freeze_recorded(mut self, start: NonNull<u8>, len: usize) -> Lease {
        if self.header().has(ZERO) {
            self = self.with_written_recorded(start, len);
        }
        #[cfg(feature = "holders")]
        if self.header().is_tracked() {
            self = self.with_used_recorded(len);
        }
        self.with_freeze_counted()
    }

    /// Returns the lease, with a freeze recorded. The lease goes by value, as above.
    #[inline]
    pub(crate) fn with_freeze_counted(self) -> Lease {
        if self.header().record_freeze() { self.with_freezes_carried() } else { self }
    }

    #[cold]
    fn with_written_recorded(self, start: NonNull<u8>, len: usize) -> Lease {
        let before = start.addr().get() - self.slot_start().addr().get();
        self.record_written(before + len);
        self
    }

    /// Returns the lease. Records a receipt of `len` bytes from a connection, if the claim is
    /// recorded.
    #[inline]
    #[cfg_attr(
        not(all(feature = "io-uring", target_os = "linux")),
        allow(dead_code, reason = "only rings receive")
    )]
    pub(crate) fn with_receipt_recorded(self, len: usize, connection: Option<u64>) -> Lease {
        #[cfg(feature = "holders")]
        if self.header().is_tracked() {
            return self.with_receipt(len, connection);
        }
        #[cfg(not(feature = "holders"))]
        let _ = (len, connection);
        self
    }

    /// Records a receipt, as [`with_receipt_recorded`](Self::with_receipt_recorded) does.
    #[inline]
    #[cfg_attr(
        not(all(feature = "io-uring", target_os = "linux")),
        allow(dead_code, reason = "only rings receive")
    )]
    pub(crate) fn record_receipt(&self, len: usize, connection: Option<u64>) {
        #[cfg(feature = "holders")]
        if self.header().is_tracked()
            && let Some(table) = &self.core().holders
        {
            table.record_received(self.index(), self.header().claims(), len, connection);
        }
        #[cfg(not(feature = "holders"))]
        let _ = (len, connection);
    }

    #[cfg(feature = "holders")]
    #[cold]
    fn with_receipt(self, len: usize, connection: Option<u64>) -> Lease {
        self.record_receipt(len, connection);
        self
    }

    #[cfg(feature = "holders")]
    #[cold]
    fn with_used_recorded(self, len: usize) -> Lease {
        if let Some(table) = &self.core().holders {
            table.record_used(self.index(), self.header().claims(), len);
        }
        self
    }

    /// Records a label of the claim, if the claim is recorded.
    #[cfg(feature = "holders")]
    pub(crate) fn record_label(&self, label: &str) {
        if self.header().is_tracked()
            && let Some(table) = &self.core().holders
        {
            table.record_label(self.index(), self.header().claims(), label);
        }
    }

    #[cold]
    fn with_freezes_carried(self) -> Lease {
        self.carry_freezes();
        self
    }

    /// Removes an owner of a slot that may have others. The last one frees the slot.
    pub(crate) fn dec_ref(self) {
        if !self.header().dec_ref() {
            std::mem::forget(self);
        }
    }

    /// Leaks the slot, and the arena's memory with it: the kernel may still write there.
    pub(crate) fn quarantine(self) {
        self.mark_quarantined();
        std::mem::forget(self);
    }

    /// Counts the slot as lost, once. The owner that calls this never drops its lease.
    pub(crate) fn mark_quarantined(&self) {
        if self.header().mark_quarantined() {
            self.core().count_quarantined(self.index());
        }
    }

    /// Overwrites the slot, so that a late reader stands out, unless it is about to be scrubbed.
    pub(super) fn poison(&self) {
        if !self.header().has(ZERO) && self.core().region.is_here() {
            // SAFETY: the owner alone has these bytes.
            unsafe {
                self.slot_start().as_ptr().write_bytes(POISON, self.slot_bytes().min(POISONED_MAX))
            };
        }
    }

    /// Frees a slot or block. `written` returns the range in it, start and length, that may have
    /// been written; it is asked for only off the fast path.
    #[inline]
    pub(crate) fn free_written(self, written: impl FnOnce() -> (NonNull<u8>, usize)) {
        let lease = ManuallyDrop::new(self);
        // SAFETY: not used again if it was freed.
        if !unsafe { lease.try_free_fast() } {
            let (start, len) = written();
            ManuallyDrop::into_inner(lease).free_slow(start.as_ptr(), len);
        }
    }

    /// Frees the slot by one exchange of its word, if that is all there is to do.
    ///
    /// Returns `false` if nothing was freed.
    ///
    /// # Safety
    ///
    /// The lease is not used again, and not dropped, if it was freed.
    #[inline]
    unsafe fn try_free_fast(&self) -> bool {
        #[cfg(uring_arena_loom)]
        self.header().bytes.with_mut(|_| ());
        if cfg!(debug_assertions) {
            self.poison();
        }
        // SAFETY: the lease owns the claim (invariant 2), and ends with it (the caller's promise).
        unsafe { free::try_free_fast(self.header) }
    }

    /// Zeroes what may have been written, if the arena asks for it. Called by the only owner.
    ///
    /// Does nothing in a forked child that the memory was kept from.
    pub(super) fn scrub_written(&self) {
        if self.header().has(ZERO) && self.core().region.is_here() {
            let written = self.header().take_written(self.slot_bytes());
            // SAFETY: the owner alone has these bytes, and `written` is at most the slot.
            unsafe { scrub(self.slot_start(), written) };
        }
    }

    /// Frees a slot or block, in any case. The `len` bytes at `start` in it may have been written.
    #[inline(never)]
    fn free_slow(self, start: *const u8, len: usize) {
        let lease = ManuallyDrop::new(self);
        if lease.header().has(ZERO) {
            if len > 0 {
                let before = start.addr() - lease.slot_start().addr().get();
                lease.header().record_written(before + len);
            }
            lease.scrub_written();
        }
        // SAFETY: the lease owns the claim (invariant 2) and ends here.
        unsafe { free::free(lease.header) }
    }
}

/// The byte that debug builds fill freed slots with.
const POISON: u8 = 0xDB;

/// The largest part of a slot that is filled: debug builds of programs with huge slots still move.
const POISONED_MAX: usize = 64 << 10;

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lease ends here if it was freed.
        if !unsafe { self.try_free_fast() } {
            // The claim goes on in a lease that ends otherwise.
            Lease { header: self.header }.free_slow(std::ptr::null(), 0);
        }
    }
}

/// The address of a slot's first byte, kept beside its lease. The lease says what may be done with
/// the bytes.
#[derive(Clone, Copy)]
pub(crate) struct SlotPtr(NonNull<u8>);

// SAFETY: memory of the process, with no tie to a thread; nothing is read or written through a
// `SlotPtr` without a lease, and leases are Send and Sync.
unsafe impl Send for SlotPtr {}
// SAFETY: as above.
unsafe impl Sync for SlotPtr {}

impl SlotPtr {
    /// The address of no slot.
    pub(crate) const DANGLING: SlotPtr = SlotPtr(NonNull::dangling());

    #[inline]
    pub(crate) fn new(start: NonNull<u8>) -> SlotPtr {
        SlotPtr(start)
    }

    #[inline]
    pub(crate) fn get(self) -> NonNull<u8> {
        self.0
    }
}
