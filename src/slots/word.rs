//! One word of the books: 32 slots, two flags and a version.
//!
//! ```text
//!  63                34   33      32   31                0
//! ┌────────────────────┬────────┬──────┬──────────────────┐
//! │ frees so far (30)  │WAITERS │CLOSED│ claimed slots    │
//! └────────────────────┴────────┴──────┴──────────────────┘
//! ```
//!
//! * A slot's bit: claimed (1) → freed (0). Only the owner of the slot clears it.
//! * `frees so far` grows with every free, in the same write. Two looks at a word that
//!   show the same number show that nothing was freed in it in between; a failing claim
//!   rests its answer on that (see [`SlotBitmap::claim`](super::SlotBitmap::claim)).
//! * `WAITERS`: somebody wants to be told of frees in this word. Set by waiters, cleared by
//!   whoever finds that none are left.
//! * `CLOSED`: the last handle is gone, nothing can be claimed any more. Never cleared.

use crate::sync::{AtomicU64, Ordering};

/// Slots that one word books.
pub(crate) const SLOTS_PER_WORD: usize = 32;

const SLOTS: u64 = (1 << SLOTS_PER_WORD) - 1;
const CLOSED: u64 = 1 << 32;
const WAITERS: u64 = 1 << 33;
const ONE_FREE: u64 = 1 << 34;

/// The value of a word, unpacked by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// A word with `slots` free slots; bits beyond them read as claimed for ever.
    pub(super) fn with_slots(slots: usize) -> Word {
        debug_assert!(slots <= SLOTS_PER_WORD);
        Word(SLOTS & !((1u64 << slots) - 1))
    }

    /// The lowest free slot: low bits first keep the same few slots hot in the cache.
    #[inline]
    pub(super) fn lowest_free(self) -> Option<u32> {
        let bit = (!(self.0 as u32)).trailing_zeros();
        (bit < SLOTS_PER_WORD as u32).then_some(bit)
    }

    /// The lowest `wanted` free slots as a mask.
    pub(super) fn lowest_free_many(self, wanted: usize) -> u32 {
        let mut left = !(self.0 as u32);
        if left.count_ones() as usize <= wanted {
            return left;
        }
        let mut taken = 0;
        for _ in 0..wanted {
            if left == 0 {
                break;
            }
            let lowest = left & left.wrapping_neg();
            taken |= lowest;
            left ^= lowest;
        }
        taken
    }

    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.0 as u32 == u32::MAX
    }

    #[inline]
    pub(super) fn claiming(self, mask: u32) -> Word {
        Word(self.0 | u64::from(mask))
    }

    #[inline]
    pub(super) fn is_claimed(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    #[inline]
    pub(super) fn claimed(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn version(self) -> u64 {
        self.0 >> 34
    }

    #[inline]
    fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// Nobody waits, and the arena has not ended: a free is nothing but a free.
    #[inline]
    fn is_plain(self) -> bool {
        self.0 & (WAITERS | CLOSED) == 0
    }

    #[inline]
    fn is_drained(self) -> bool {
        self.0 & (CLOSED | SLOTS) == CLOSED
    }
}

/// What freeing a slot did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum FreeOutcome {
    /// The slot is free. The books may be gone by the time this is read.
    Done,
    /// The slot is free, the arena is closed, and this was the word's last claim: the
    /// caller counts the word as drained, exactly once.
    ArenaDrained,
    /// Nothing was freed: somebody waits, so the caller takes the slow road.
    HasWaiters,
}

/// What to add to a word to free one of its claimed slots: clears the bit, counts the free. Worked
/// out once for each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreeStep(u64);

impl FreeStep {
    pub(super) fn of(bit: u32) -> FreeStep {
        FreeStep(ONE_FREE - (1 << bit))
    }

    /// As a number, to be kept beside the slot.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`to_bits`](Self::to_bits) gave.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> FreeStep {
        FreeStep(bits)
    }

    #[inline]
    fn taken(self, seen: Word) -> Word {
        debug_assert!(seen.is_claimed(self.0.trailing_zeros()), "slot freed twice");
        Word(seen.0.wrapping_add(self.0))
    }
}

/// Frees a slot of `word` if that is all there is to do: false, and nothing was freed, if somebody
/// waits or the arena is closed.
///
/// The word is all that is touched, and not after the slot is free: when the caller's
/// claim was the last thing that kept the books alive, they may be gone at once.
#[inline]
pub(crate) fn free_plainly(word: &AtomicU64, step: FreeStep) -> bool {
    // Relaxed: the compare-exchange checks what was read.
    let mut seen = Word(word.load(Ordering::Relaxed));
    while seen.is_plain() {
        match exchange(word, seen, step.taken(seen)) {
            Ok(()) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// Frees a slot of `word`, unless somebody waits for it. Touches what [`free_plainly`] does.
pub(crate) fn free_slot(word: &AtomicU64, step: FreeStep) -> FreeOutcome {
    let mut seen = Word(word.load(Ordering::Relaxed));
    loop {
        if seen.has_waiters() {
            return FreeOutcome::HasWaiters;
        }
        match exchange(word, seen, step.taken(seen)) {
            Ok(()) => return outcome(step.taken(seen)),
            Err(now) => seen = now,
        }
    }
}

/// Frees a slot of `word` whether or not somebody waits. `Waiters` never comes back.
pub(crate) fn free_despite_waiters(word: &AtomicU64, step: FreeStep) -> FreeOutcome {
    let mut seen = Word(word.load(Ordering::Relaxed));
    loop {
        match exchange(word, seen, step.taken(seen)) {
            Ok(()) => return outcome(step.taken(seen)),
            Err(now) => seen = now,
        }
    }
}

#[inline]
fn outcome(after: Word) -> FreeOutcome {
    if after.is_drained() { FreeOutcome::ArenaDrained } else { FreeOutcome::Done }
}

/// Replaces `seen` by `new`, or says what the word holds now.
///
/// AcqRel on success. Release: what the owner wrote to the slot and its header happens
/// before the next claim of it. Acquire: a claim sees those writes, and the free that drains a
/// closed word sees the writes of every earlier free in it (they are one release sequence),
/// which is what makes it safe to give the memory back. Acquire on failure: a failing
/// claim's second look must not be older than what its first look saw.
#[inline]
pub(super) fn exchange(word: &AtomicU64, seen: Word, new: Word) -> Result<(), Word> {
    word.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
        .map_err(Word)
}

/// Closes a word whose slots are the lowest `slots`; true if it holds no claim.
///
/// The bits of slots that do not exist are cleared on the way, so that an empty word reads as
/// drained.
pub(super) fn close(word: &AtomicU64, slots: usize) -> bool {
    let missing = Word::with_slots(slots).0;
    let mut seen = Word(word.load(Ordering::Relaxed));
    loop {
        debug_assert_eq!(seen.0 & CLOSED, 0, "closed twice");
        let closed = Word((seen.0 & !missing) | CLOSED);
        match exchange(word, seen, closed) {
            Ok(()) => return closed.is_drained(),
            Err(now) => seen = now,
        }
    }
}

/// Asks to be told of every free in this word.
///
/// A free whose compare-exchange comes later in the word's order sees the bit; one that came
/// earlier is seen by the look that follows. AcqRel: pairs with [`exchange`]: the look sees all
/// that the earlier free had done.
pub(super) fn set_waiters(word: &AtomicU64) {
    word.fetch_or(WAITERS, Ordering::AcqRel);
}

/// Nobody waits any more. The callers of this and of [`set_waiters`] exclude each other by a lock.
///
/// AcqRel: as an ordinary change of the word.
pub(super) fn clear_waiters(word: &AtomicU64) {
    word.fetch_and(!WAITERS, Ordering::AcqRel);
}
