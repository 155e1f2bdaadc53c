//! One word of the bitmap: 32 slots, two flags and a count of frees.
//!
//! ```text
//!  63                34   33      32   31                0
//! ┌────────────────────┬────────┬──────┬──────────────────┐
//! │ frees so far (30)  │WAITERS │CLOSED│ claimed slots    │
//! └────────────────────┴────────┴──────┴──────────────────┘
//! ```
//!
//! | part           | changes                                                                 |
//! |----------------|-------------------------------------------------------------------------|
//! | a slot's bit   | free (0) → claimed (1) by a claim, → free (0) by the owner of the slot  |
//! | `CLOSED`       | clear → set when the last handle of the arena is dropped; never cleared |
//! | `WAITERS`      | clear → set by the first waiter; set → clear when nobody waits any more |
//! | `frees so far` | grows by one with every free, in the same write                         |
//!
//! A free that meets `WAITERS` frees nothing: the caller offers the slot to the wait queue.
//! Equal numbers of frees in two reads of a word mean that nothing was freed in between. A claim
//! that fails rests its answer on that (see [`SlotBitmap::claim`](super::SlotBitmap::claim)).

use crate::sync::{AtomicU64, Ordering};

/// The number of slots in one word.
pub(crate) const SLOTS_PER_WORD: usize = 32;

const SLOTS: u64 = (1 << SLOTS_PER_WORD) - 1;
const CLOSED: u64 = 1 << 32;
const WAITERS: u64 = 1 << 33;
const ONE_FREE: u64 = 1 << 34;

/// The value of a word, unpacked by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotWord(pub(super) u64);

impl SlotWord {
    /// Makes a word with `slots` free slots. Bits beyond them read as claimed for ever.
    pub(super) fn with_slots(slots: usize) -> SlotWord {
        debug_assert!(slots <= SLOTS_PER_WORD);
        SlotWord(SLOTS & !((1u64 << slots) - 1))
    }

    /// Finds the lowest free slot. Low bits first keep the same few slots in the cache.
    #[inline]
    pub(super) fn lowest_free(self) -> Option<u32> {
        let bit = (!(self.0 as u32)).trailing_zeros();
        (bit < SLOTS_PER_WORD as u32).then_some(bit)
    }

    /// Finds the lowest `wanted` free slots, as a mask.
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
    pub(super) fn with_claimed(self, mask: u32) -> SlotWord {
        SlotWord(self.0 | u64::from(mask))
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
    pub(super) fn frees(self) -> u64 {
        self.0 >> 34
    }

    /// Returns `true` if nobody waits and the arena is open: a free changes nothing but the word.
    #[inline]
    fn allows_fast_free(self) -> bool {
        self.0 & (WAITERS | CLOSED) == 0
    }

    #[inline]
    fn is_drained(self) -> bool {
        self.0 & (CLOSED | SLOTS) == CLOSED
    }
}

/// The outcome of freeing a slot or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum FreeOutcome {
    /// The memory is free. The allocator may be gone by the time that this is read.
    Done,
    /// The memory is free, the arena is closed, and this was the last claim in its word. The caller
    /// counts the word as drained, exactly once.
    ArenaDrained,
    /// Nothing was freed: somebody waits, so the caller offers the memory to the wait queue.
    HasWaiters,
}

/// The change of a word that frees one of its claimed slots: clears the bit and counts the free.
///
/// The change is one addition, computed once for each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotFree(u64);

impl SlotFree {
    pub(super) fn new(bit: u32) -> SlotFree {
        SlotFree(ONE_FREE - (1 << bit))
    }

    /// Returns the change as a number, to be kept beside the slot.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Restores the change from [`to_bits`](Self::to_bits).
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> SlotFree {
        SlotFree(bits)
    }

    #[inline]
    fn applied_to(self, seen: SlotWord) -> SlotWord {
        debug_assert!(seen.is_claimed(self.0.trailing_zeros()), "slot freed twice");
        SlotWord(seen.0.wrapping_add(self.0))
    }

    /// Frees a slot of `word` unless somebody waits or the arena is closed.
    ///
    /// Returns `false` if nothing was freed. The word is the only memory that this function
    /// touches, and not after the slot is free: the arena may then be gone.
    #[inline]
    pub(crate) fn try_free_fast(self, word: &AtomicU64) -> bool {
        // Relaxed: the compare-exchange checks the value that was read.
        let mut seen = SlotWord(word.load(Ordering::Relaxed));
        while seen.allows_fast_free() {
            match exchange(word, seen, self.applied_to(seen)) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Frees a slot of `word` unless somebody waits. Touches the same memory as
    /// [`try_free_fast`](Self::try_free_fast).
    pub(crate) fn free(self, word: &AtomicU64) -> FreeOutcome {
        self.free_unless(word, WAITERS)
    }

    /// Frees a slot of `word`, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    pub(super) fn free_ignoring_waiters(self, word: &AtomicU64) -> FreeOutcome {
        self.free_unless(word, 0)
    }

    fn free_unless(self, word: &AtomicU64, flag: u64) -> FreeOutcome {
        let mut seen = SlotWord(word.load(Ordering::Relaxed));
        while seen.0 & flag == 0 {
            let after = self.applied_to(seen);
            match exchange(word, seen, after) {
                Ok(()) if after.is_drained() => return FreeOutcome::ArenaDrained,
                Ok(()) => return FreeOutcome::Done,
                Err(now) => seen = now,
            }
        }
        FreeOutcome::HasWaiters
    }
}

/// Replaces `seen` by `new`. Returns the present value of the word if it is another one.
///
/// AcqRel on success. Release: what the owner wrote to the slot and its header happens before the
/// next claim of it. Acquire: a claim sees those writes. The free that drains a closed word sees
/// the writes of every earlier free in it, as all of them are one release sequence; so the memory
/// may be given back. Acquire on failure: the second read of a failing claim must not be older than
/// what its first read saw.
#[inline]
pub(super) fn exchange(word: &AtomicU64, seen: SlotWord, new: SlotWord) -> Result<(), SlotWord> {
    word.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
        .map_err(SlotWord)
}

/// Closes a word whose slots are the lowest `slots`. Returns `true` if it holds no claim.
///
/// The bits of slots that do not exist are cleared in the same write: an empty word then reads as
/// drained.
pub(super) fn close(word: &AtomicU64, slots: usize) -> bool {
    let missing = SlotWord::with_slots(slots).0;
    let mut seen = SlotWord(word.load(Ordering::Relaxed));
    loop {
        debug_assert_eq!(seen.0 & CLOSED, 0, "closed twice");
        let closed = SlotWord((seen.0 & !missing) | CLOSED);
        match exchange(word, seen, closed) {
            Ok(()) => return closed.is_drained(),
            Err(now) => seen = now,
        }
    }
}

/// Sets the `WAITERS` flag: every later free of the word returns [`FreeOutcome::HasWaiters`].
///
/// AcqRel: pairs with [`exchange`]. A free whose compare-exchange comes later in the word's order
/// sees the flag. An earlier free is seen by the claim that follows this call.
pub(super) fn set_waiters_flag(word: &AtomicU64) {
    word.fetch_or(WAITERS, Ordering::AcqRel);
}

/// Clears the `WAITERS` flag. A lock orders the callers of this and of [`set_waiters_flag`].
///
/// AcqRel: as every change of the word.
pub(super) fn clear_waiters_flag(word: &AtomicU64) {
    word.fetch_and(!WAITERS, Ordering::AcqRel);
}
