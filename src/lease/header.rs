//! What is kept beside each slot, out of band: the kernel owns the bytes inside.
//!
//! Only the owner of the slot writes a header (shared owners: only the count). So its numbers need
//! no read-modify-write and are exact all the same; a snapshot sums them.

use crate::slots::FreeStep;
use crate::sync::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Scrub what was written before the slot is free.
pub(crate) const ZERO: u32 = 1 << 0;
/// A full buffer moves to the heap instead of panicking.
pub(crate) const SPILL: u32 = 1 << 1;
/// The header has a line of its own ([`HeaderLine`]): it is that of a slot, not of a block.
pub(super) const LINE: u32 = 1 << 31;
const FLAGS: u32 = ZERO | SPILL | LINE;
/// How far from its core a header can be, in bytes.
pub(super) const BACK_MAX: usize = LINE as usize - 4;

/// In `used`: the slot is lost for good.
const QUARANTINED: u8 = 1 << 1;

/// In `order`: the owner has frozen what it wrote.
const FROZEN: u8 = 1 << 7;
const ORDER: u8 = 0x1F;

/// Bytes that one unit of `written` stands for: 2³² of them are more than any slot holds.
const WRITTEN_GRAIN: usize = 16;

/// One slot's, or one smallest block's, header: 20 bytes. All zero is a header never used.
#[repr(C)]
pub(crate) struct Header {
    /// Owners beyond the first. Counted up Relaxed by an owner, down Release; see
    /// [`Header::give_up_share`].
    shares: AtomicU32,
    /// Bytes from this header back to its `Core`, with the arena's policies and kind in the lowest
    /// and highest bits. Set by the first claim.
    home: AtomicU32,
    /// Claims so far; also the generation of the slot. What wraps is carried to the core.
    claims: AtomicU32,
    /// Highest byte that may have been written since the claim, in grains, rounded up.
    written: AtomicU32,
    /// Freezes so far; what wraps is carried to the core.
    frozen: AtomicU16,
    /// Order of the block that starts here (buddy mode), and whether its owner has frozen it (both
    /// modes). Written by a claim, so that in the buddy mode it starts anew with no store of its
    /// own.
    order: AtomicU8,
    /// Buddy mode: this unit's bytes have been handed out before, so they are as clean as a free
    /// left them.
    used: AtomicU8,
    /// In a model: stands for the slot's bytes, so that loom sees who touches them when.
    #[cfg(uring_arena_loom)]
    pub(crate) bytes: loom::cell::UnsafeCell<()>,
}

/// A header on a cache line of its own: neighbours belong to other threads.
#[repr(C, align(64))]
pub(crate) struct HeaderLine {
    pub(crate) header: Header,
    /// The slot's word, and what frees the slot in it: all that freeing touches. Set by the first
    /// claim.
    word: AtomicPtr<AtomicU64>,
    step: AtomicU64,
}

impl HeaderLine {
    #[cfg(uring_arena_loom)]
    pub(super) fn new() -> HeaderLine {
        HeaderLine {
            header: Header::new(),
            word: AtomicPtr::new(std::ptr::null_mut()),
            step: AtomicU64::new(0),
        }
    }

    /// Relaxed, as all that only the owner of the slot touches.
    pub(super) fn set_place(&self, word: &AtomicU64, step: FreeStep) {
        self.word.store(std::ptr::from_ref(word).cast_mut(), Ordering::Relaxed);
        self.step.store(step.to_bits(), Ordering::Relaxed);
    }

    /// What frees the slot, and where; the pointer is good while the slot is claimed.
    #[inline]
    pub(super) fn place(&self) -> (*const AtomicU64, FreeStep) {
        (self.word.load(Ordering::Relaxed), FreeStep::from_bits(self.step.load(Ordering::Relaxed)))
    }
}

/// Bytes from a header back to its core, of what [`Header::home`] gives.
#[inline]
pub(super) fn back_of(home: u32) -> usize {
    (home & !FLAGS) as usize
}

impl Header {
    /// A header never used; what zeroed memory is in an ordinary build.
    #[cfg(uring_arena_loom)]
    pub(crate) fn new() -> Header {
        Header {
            shares: AtomicU32::new(0),
            home: AtomicU32::new(0),
            claims: AtomicU32::new(0),
            written: AtomicU32::new(0),
            frozen: AtomicU16::new(0),
            order: AtomicU8::new(0),
            used: AtomicU8::new(0),
            bytes: loom::cell::UnsafeCell::new(()),
        }
    }

    /// Notes a claim. Returns how many there were with this one; 0 if the count starts again.
    ///
    /// Relaxed here and below: the word that claimed and frees the slot orders its owners' accesses
    /// (`slots::word::exchange`), and a snapshot needs only whole numbers.
    #[inline]
    pub(crate) fn note_claim(&self) -> u32 {
        let now = self.claims.load(Ordering::Relaxed).wrapping_add(1);
        self.claims.store(now, Ordering::Relaxed);
        now
    }

    /// Says where the core is. By the first claim; the same for all.
    pub(super) fn set_home(&self, back_and_flags: u32) {
        self.home.store(back_and_flags, Ordering::Relaxed);
    }

    /// The way back to the core, with flags: see [`back_of`].
    #[inline]
    pub(super) fn home(&self) -> u32 {
        self.home.load(Ordering::Relaxed)
    }

    /// Notes a freeze. True once in 65,536 times, when the caller carries that many to the core.
    #[inline]
    pub(crate) fn note_freeze(&self) -> bool {
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

    /// Bytes from this header back to its core.
    #[inline]
    pub(crate) fn back(&self) -> usize {
        back_of(self.home())
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.home() & flag != 0
    }

    /// Notes that bytes up to `end`, counted from the start of the slot, may have been written.
    #[inline]
    pub(crate) fn note_written(&self, end: usize) {
        let grains = u32::try_from(end.div_ceil(WRITTEN_GRAIN)).unwrap_or(u32::MAX);
        if grains > self.written.load(Ordering::Relaxed) {
            self.written.store(grains, Ordering::Relaxed);
        }
    }

    /// Bytes from the start of a slot of `slot_bytes` that may have been written; starts anew at
    /// none.
    pub(crate) fn take_written(&self, slot_bytes: usize) -> usize {
        let grains = self.written.load(Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        (grains as usize).saturating_mul(WRITTEN_GRAIN).min(slot_bytes)
    }

    /// Adds an owner. The caller is one, so the slot stays owned whatever others do: Relaxed is
    /// enough.
    #[inline]
    pub(crate) fn add_share(&self) {
        let before = self.shares.fetch_add(1, Ordering::Relaxed);
        if before > i32::MAX as u32 {
            // Two thousand million forgotten clones: going on would wrap the count and free a slot
            // in use.
            std::process::abort();
        }
    }

    /// True if the caller is the only owner.
    ///
    /// Acquire: pairs with the Release in [`give_up_share`](Self::give_up_share): what the other
    /// owners read, they read before the caller writes or frees.
    #[inline]
    pub(crate) fn is_sole(&self) -> bool {
        self.shares.load(Ordering::Acquire) == 0
    }

    /// Gives up one owner's share. True if it was the last: the caller then owns the slot alone.
    #[inline]
    pub(crate) fn give_up_share(&self) -> bool {
        // A sole owner stays one, nobody else can add a share: no read-modify-write is needed.
        self.is_sole() || self.give_up_one_of_many()
    }

    fn give_up_one_of_many(&self) -> bool {
        // Release: this owner's reads come before the last owner's free. Acquire: pairs with the
        // others' Release.
        if self.shares.fetch_sub(1, Ordering::AcqRel) > 0 {
            return false;
        }
        self.shares.store(0, Ordering::Relaxed);
        true
    }

    #[inline]
    pub(crate) fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed) & ORDER
    }

    #[inline]
    pub(crate) fn set_order(&self, order: u8) {
        self.order.store(order, Ordering::Relaxed);
    }

    /// Says that nothing is frozen here (any more): by a claim of a slot, and by an owner that may
    /// write again.
    #[inline]
    pub(crate) fn note_thaw(&self) {
        self.order.store(self.order(), Ordering::Relaxed);
    }

    /// As [`note_thaw`](Self::note_thaw) for a slot, which has no order to keep.
    #[inline]
    pub(super) fn note_slot_claimed(&self) {
        self.order.store(0, Ordering::Relaxed);
    }

    /// Whether the owner of a claimed slot, or block, has frozen it.
    pub(crate) fn is_frozen(&self) -> bool {
        self.order.load(Ordering::Relaxed) & FROZEN != 0
    }

    /// Whether the slot is lost for good.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.used.load(Ordering::Relaxed) & QUARANTINED != 0
    }

    /// Marks the slot as lost for good; true if this is the first mark.
    ///
    /// Several owners may lose theirs at once. Nobody claims the slot again, so nobody stores to
    /// the byte meanwhile.
    pub(crate) fn note_quarantine(&self) -> bool {
        // Relaxed: it only keeps the count exact.
        self.used.fetch_or(QUARANTINED, Ordering::Relaxed) & QUARANTINED == 0
    }

    /// Notes that this unit's bytes are handed out; true if they were before.
    pub(crate) fn note_used(&self) -> bool {
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
    fn written_is_rounded_up_and_never_past_the_slot() {
        // SAFETY: all zero is a header never used, and made of atomics only.
        let line: HeaderLine = unsafe { std::mem::zeroed() };
        line.header.note_written(17);
        line.header.note_written(3);
        assert_eq!(line.header.take_written(100), 32);
        assert_eq!(line.header.take_written(100), 0);
        line.header.note_written(99);
        assert_eq!(line.header.take_written(100), 100);
    }
}
