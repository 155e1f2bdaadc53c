//! The header of a slot, kept out of band: the kernel owns the bytes inside the slot.
//!
//! Only the owner of a slot writes its header; owners that share the slot write only the count. So
//! the counters need no read-modify-write and are exact all the same; a snapshot sums them.

use std::ptr::NonNull;

use crate::slots::SlotFree;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A flag: what was written is scrubbed before the slot is free.
pub(crate) const ZERO: u32 = 1 << 0;
/// A flag: a full buffer moves to the heap instead of panicking.
pub(crate) const SPILL: u32 = 1 << 1;
/// A flag: the header begins a [`HeaderLine`], because it is that of a slot and not of a block.
pub(super) const LINE: u32 = 1 << 31;
const FLAGS: u32 = ZERO | SPILL | LINE;
/// The largest distance of a header from its core, in bytes.
pub(super) const CORE_OFFSET_MAX: usize = LINE as usize - 4;

/// A bit of `used`: the slot is lost for good.
const QUARANTINED: u8 = 1 << 1;

/// A bit of `order`: the owner has frozen what it wrote.
const FROZEN: u8 = 1 << 7;
/// A bit of `order`: the free of the block is not to be remembered by the thread.
const FORGOTTEN: u8 = 1 << 6;
/// A bit of `order`: the claim is recorded (`holder_table`).
const TRACKED: u8 = 1 << 5;
const ORDER: u8 = 0x1F;

/// The bits of a count of claims that are zero at rare claims: see [`is_rare`].
pub(super) const RARE: u32 = 0x3FFE;

/// Tells whether a claim is rare by the number of claims with it.
///
/// Rare are the first claim, the one at which the count wraps, and two of every 16,384 others.
#[inline]
pub(super) fn is_rare(claims: u32) -> bool {
    claims & RARE == 0
}

/// The number of bytes in a grain of `written`. The largest count stands for the whole slot: slots
/// of 64 GiB and more hold as many grains.
const WRITTEN_GRAIN: usize = 16;

/// The header of one slot, or of one smallest block: 20 bytes. All zero is a header never used.
#[repr(C)]
pub(crate) struct Header {
    /// The number of owners beyond the first. An owner counts it up Relaxed and down Release; see
    /// [`Header::dec_ref`].
    extra_refs: AtomicU32,
    /// The distance in bytes from the `Core` to this header, with the arena's policies and kind in
    /// the lowest and highest bits. The first claim writes it.
    core_offset_and_flags: AtomicU32,
    /// The number of claims so far. A wrap is carried to the core.
    claims: AtomicU32,
    /// The highest byte that may have been written since the claim, in grains, rounded up.
    written: AtomicU32,
    /// The number of freezes so far. A wrap is carried to the core.
    frozen: AtomicU16,
    /// The order of the block that starts here (buddy mode), and whether its owner has frozen it
    /// (both modes). A claim writes the byte, so freezing needs no reset of its own in buddy mode.
    order: AtomicU8,
    /// A mark that the bytes of this smallest block were handed out before (buddy mode), so they
    /// are as clean as a free left them.
    used: AtomicU8,
    /// A stand-in for the bytes of the slot in a model: loom sees accesses to it.
    #[cfg(uring_arena_loom)]
    pub(crate) bytes: loom::cell::UnsafeCell<()>,
}

/// A header on a cache line of its own: neighbours belong to other threads.
#[repr(C, align(64))]
pub(crate) struct HeaderLine {
    pub(crate) header: Header,
    /// The number of slots in the run that bytes share from this slot on, or 0.
    run_len: AtomicU8,
    /// The distance to the first slot of the run that the slot was in last, in slots. It says
    /// something only while the run of that slot reaches this one.
    run_offset: AtomicU8,
    /// The word of the slot in the bitmap. The first claim writes it, and `free`.
    word: AtomicPtr<AtomicU64>,
    /// The change of the word that frees the slot.
    free: AtomicU64,
}

impl HeaderLine {
    #[cfg(uring_arena_loom)]
    pub(super) fn new() -> HeaderLine {
        HeaderLine {
            header: Header::new(),
            run_len: AtomicU8::new(0),
            run_offset: AtomicU8::new(0),
            word: AtomicPtr::new(std::ptr::null_mut()),
            free: AtomicU64::new(0),
        }
    }

    /// Sets the place of the slot in a run. The first slot has its length; the others have 0.
    ///
    /// Relaxed: the owner alone has the slots, and hands them on as it does their bytes.
    pub(super) fn set_run(&self, offset: u32, len: u32) {
        self.run_offset.store(offset as u8, Ordering::Relaxed);
        self.run_len.store(len as u8, Ordering::Relaxed);
    }

    pub(super) fn run_len(&self) -> u32 {
        self.run_len.load(Ordering::Relaxed).into()
    }

    pub(super) fn run_offset(&self) -> u32 {
        self.run_offset.load(Ordering::Relaxed).into()
    }

    /// Sets the word of the slot and the change that frees the slot in it.
    ///
    /// Relaxed, as every access of the slot's owner.
    pub(super) fn set_free(&self, word: &AtomicU64, free: SlotFree) {
        self.word.store(std::ptr::from_ref(word).cast_mut(), Ordering::Relaxed);
        self.free.store(free.to_bits(), Ordering::Relaxed);
    }

    /// Has frees of the slot go to slot `number` of the batch that begins with `gate`.
    pub(super) fn set_batch(&self, gate: NonNull<AtomicU64>, number: u32) {
        self.word.store(gate.as_ptr(), Ordering::Relaxed);
        self.free.store(SlotFree::of_batch(number).to_bits(), Ordering::Relaxed);
    }

    /// Returns the word of the slot and the change that frees the slot in it. The pointer is valid
    /// while the slot is claimed.
    #[inline]
    pub(super) fn prepared_free(&self) -> (*const AtomicU64, SlotFree) {
        (self.word.load(Ordering::Relaxed), SlotFree::from_bits(self.free.load(Ordering::Relaxed)))
    }
}

/// Takes the distance from the core out of [`Header::core_offset_and_flags`].
#[inline]
pub(super) fn core_offset(offset_and_flags: u32) -> usize {
    (offset_and_flags & !FLAGS) as usize
}

impl Header {
    /// Makes a header never used: zeroed memory in an ordinary build.
    #[cfg(uring_arena_loom)]
    pub(crate) fn new() -> Header {
        Header {
            extra_refs: AtomicU32::new(0),
            core_offset_and_flags: AtomicU32::new(0),
            claims: AtomicU32::new(0),
            written: AtomicU32::new(0),
            frozen: AtomicU16::new(0),
            order: AtomicU8::new(0),
            used: AtomicU8::new(0),
            bytes: loom::cell::UnsafeCell::new(()),
        }
    }

    /// Records a claim. Returns the number of claims with this one, or 0 if the count wrapped.
    ///
    /// Relaxed here and below. The word that claims and frees the slot orders the accesses of its
    /// owners (`slots::bitmap::exchange`), and a snapshot needs only whole numbers.
    #[inline]
    pub(crate) fn record_claim(&self) -> u32 {
        let now = self.claims.load(Ordering::Relaxed).wrapping_add(1);
        self.claims.store(now, Ordering::Relaxed);
        now
    }

    /// Sets the number of claims, for the owner. Returns it.
    pub(super) fn set_claims(&self, claims: u32) -> u32 {
        self.claims.store(claims, Ordering::Relaxed);
        claims
    }

    /// Sets the distance from the core, with the flags. The first claim calls this; the value is
    /// the same for all.
    pub(super) fn set_core_offset_and_flags(&self, offset_and_flags: u32) {
        self.core_offset_and_flags.store(offset_and_flags, Ordering::Relaxed);
    }

    /// Returns the distance from the core, with the flags: see [`core_offset`].
    #[inline]
    pub(super) fn core_offset_and_flags(&self) -> u32 {
        self.core_offset_and_flags.load(Ordering::Relaxed)
    }

    /// Records a freeze. Returns `true` once in 65,536 times: the caller then carries that many to
    /// the core.
    #[inline]
    pub(crate) fn record_freeze(&self) -> bool {
        self.order.store(self.order.load(Ordering::Relaxed) | FROZEN, Ordering::Relaxed);
        let now = self.frozen.load(Ordering::Relaxed).wrapping_add(1);
        self.frozen.store(now, Ordering::Relaxed);
        now == 0
    }

    #[inline]
    pub(crate) fn claims(&self) -> u32 {
        self.claims.load(Ordering::Relaxed)
    }

    pub(crate) fn frozen(&self) -> u16 {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Returns the distance in bytes from the core to this header.
    #[inline]
    pub(crate) fn core_offset(&self) -> usize {
        core_offset(self.core_offset_and_flags())
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.core_offset_and_flags() & flag != 0
    }

    /// Records that bytes up to `end`, counted from the start of the slot, may have been written.
    #[inline]
    pub(crate) fn record_written(&self, end: usize) {
        let grains = u32::try_from(end.div_ceil(WRITTEN_GRAIN)).unwrap_or(u32::MAX);
        if grains > self.written.load(Ordering::Relaxed) {
            self.written.store(grains, Ordering::Relaxed);
        }
    }

    /// Returns the number of bytes, from the start of a slot of `slot_bytes`, that may have been
    /// written. Resets the record to none.
    pub(crate) fn take_written(&self, slot_bytes: usize) -> usize {
        let grains = self.written.load(Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        if grains == u32::MAX {
            return slot_bytes;
        }
        (grains as usize).saturating_mul(WRITTEN_GRAIN).min(slot_bytes)
    }

    /// Adds an owner.
    ///
    /// Relaxed is enough: the caller is an owner, so the slot stays owned whatever others do.
    #[inline]
    pub(crate) fn inc_ref(&self) {
        let before = self.extra_refs.fetch_add(1, Ordering::Relaxed);
        if before > i32::MAX as u32 {
            // Two thousand million forgotten clones: going on would wrap the count and free a slot
            // in use.
            std::process::abort();
        }
    }

    /// Returns `true` if the caller is the only owner.
    ///
    /// Acquire: pairs with the Release in [`dec_ref`](Self::dec_ref). The other owners have read
    /// before the caller writes or frees.
    #[inline]
    pub(crate) fn is_unique(&self) -> bool {
        self.extra_refs.load(Ordering::Acquire) == 0
    }

    /// Removes an owner. Returns `true` if it was the last: the caller then owns the slot alone.
    #[inline]
    pub(crate) fn dec_ref(&self) -> bool {
        // A sole owner stays one, as nobody else can add an owner: no read-modify-write is needed.
        self.is_unique() || self.dec_shared_ref()
    }

    #[inline]
    fn dec_shared_ref(&self) -> bool {
        // Release: this owner's reads come before the last owner's free. Acquire: pairs with the
        // others' Release.
        if self.extra_refs.fetch_sub(1, Ordering::AcqRel) > 0 {
            return false;
        }
        self.extra_refs.store(0, Ordering::Relaxed);
        true
    }

    #[inline]
    pub(crate) fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed) & ORDER
    }

    /// Returns the order of the block, and its order for the caches of threads: one that has no
    /// cache, if the free of the block is not to be remembered.
    #[inline]
    pub(crate) fn orders(&self) -> (u32, u32) {
        let order = self.order.load(Ordering::Relaxed);
        ((order & ORDER).into(), (order & (ORDER | FORGOTTEN)).into())
    }

    /// Marks a claimed block, so that the thread which frees it does not go back there.
    pub(crate) fn forget_free(&self) {
        self.order.store(self.order.load(Ordering::Relaxed) | FORGOTTEN, Ordering::Relaxed);
    }

    /// Sets the order of a block that was claimed. The block is not frozen.
    #[inline]
    pub(crate) fn set_order(&self, order: u8) {
        self.order.store(order, Ordering::Relaxed);
    }

    /// Clears the mark that the slot, or block, is frozen: its owner may write again.
    #[inline]
    pub(crate) fn clear_frozen(&self) {
        let kept = self.order.load(Ordering::Relaxed) & (ORDER | TRACKED);
        self.order.store(kept, Ordering::Relaxed);
    }

    /// Marks the claim as recorded. The next claim clears the mark.
    #[cfg(feature = "holders")]
    pub(super) fn set_tracked(&self) {
        self.order.store(self.order.load(Ordering::Relaxed) | TRACKED, Ordering::Relaxed);
    }

    /// Returns `true` if the claim is recorded.
    #[cfg(feature = "holders")]
    #[inline]
    pub(crate) fn is_tracked(&self) -> bool {
        self.order.load(Ordering::Relaxed) & TRACKED != 0
    }

    /// Returns `true` if the owner of the slot, or block, has frozen it.
    pub(crate) fn is_frozen(&self) -> bool {
        self.order.load(Ordering::Relaxed) & FROZEN != 0
    }

    /// Returns `true` if the slot is lost for good.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.used.load(Ordering::Relaxed) & QUARANTINED != 0
    }

    /// Marks the slot as lost for good. Returns `true` if this is the first mark.
    ///
    /// Several owners may lose the slot at once. Nobody claims it again, so nobody stores to the
    /// byte meanwhile.
    pub(crate) fn mark_quarantined(&self) -> bool {
        // Relaxed: the read-modify-write only keeps the count exact.
        self.used.fetch_or(QUARANTINED, Ordering::Relaxed) & QUARANTINED == 0
    }

    /// Marks the bytes of this smallest block as handed out. Returns `true` if they were before.
    pub(crate) fn mark_used(&self) -> bool {
        let before = self.used.load(Ordering::Relaxed) != 0;
        self.used.store(1, Ordering::Relaxed);
        before
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
#[allow(unsafe_code)] // a header is made from zeroed memory, as a core does
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_size_that_the_design_counts_on() {
        assert_eq!(size_of::<Header>(), 20);
        assert_eq!(size_of::<HeaderLine>(), 64);
        assert_eq!(align_of::<Header>(), 4);
    }

    #[test]
    fn the_first_claim_is_rare_and_so_is_the_wrap_and_few_others() {
        assert!(is_rare(1) && is_rare(0));
        let end = 1 << if cfg!(miri) { 12 } else { 20 };
        let rare = (2..=end).filter(|&claims| is_rare(claims)).count();
        assert_eq!(rare, (2 * (end as usize >> 14)).saturating_sub(1));
    }

    #[test]
    fn written_is_rounded_up_and_never_past_the_slot() {
        // SAFETY: all zero is a header never used, and made of atomics only.
        let line: HeaderLine = unsafe { std::mem::zeroed() };
        line.header.record_written(17);
        line.header.record_written(3);
        assert_eq!(line.header.take_written(100), 32);
        assert_eq!(line.header.take_written(100), 0);
        line.header.record_written(99);
        assert_eq!(line.header.take_written(100), 100);
        line.header.record_written(usize::MAX);
        assert_eq!(line.header.take_written(100), 100);
    }

    #[test]
    fn written_is_never_less_than_the_end_in_slots_of_any_size() {
        const GIB: usize = 1 << 30;
        // SAFETY: all zero is a header never used, and made of atomics only.
        let line: HeaderLine = unsafe { std::mem::zeroed() };
        for slot_bytes in [64 * GIB, 64 * GIB + 1, 65 * GIB, 1 << 46] {
            let ends = [1, GIB, 64 * GIB - 17, 64 * GIB - 16, 64 * GIB - 15, 64 * GIB, slot_bytes];
            for end in ends.into_iter().chain([slot_bytes - 1]) {
                line.header.record_written(end);
                let written = line.header.take_written(slot_bytes);
                assert!((end..=slot_bytes).contains(&written), "{end} of {slot_bytes}: {written}");
            }
        }
    }
}
