//! Runs: adjacent slots of one word, claimed and freed by one exchange.

use super::bitmap::{SLOTS_PER_WORD, SlotBitmap, SlotFree, SlotWord, exchange};
use crate::sync::Ordering;

/// The number of words in which a claim looks for a whole run. Beyond them a shorter one will do.
const WORDS_AT_MOST: usize = 16;

/// The exchanges that a claim of a whole free run tries.
const TRIES: usize = 8;

/// A group of adjacent slots of one word that were claimed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRun {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl SlotBitmap {
    /// Claims up to `wanted` adjacent slots, the lowest that are free in the first word from `hint`
    /// on that has so many. A word has 32 slots, so a run has at most as many.
    ///
    /// If the next few words have no whole run, the longest one seen is claimed. `hint` becomes the
    /// word of the run. `None` proves nothing: those words were full, or changed meanwhile.
    pub(crate) fn claim_run(&self, hint: &mut usize, wanted: u32) -> Option<SlotRun> {
        let wanted = wanted.clamp(1, SLOTS_PER_WORD as u32);
        let words = self.word_count();
        let mut longest = (0, 0);
        for step in 0..words.min(WORDS_AT_MOST) {
            let index = (*hint + step) % words;
            let free = self.free_in(index);
            if let Some(run) = self.claim_run_in(index, wanted) {
                *hint = index;
                return Some(run);
            }
            longest = longest.max((longest_run(free), index));
        }
        let (len, index) = longest;
        if len == 0 {
            // The next claim looks at other words.
            *hint = (*hint + WORDS_AT_MOST) % words;
            return None;
        }
        *hint = index;
        self.claim_run_in(index, len.min(wanted))
    }

    /// Claims the lowest `len` adjacent free slots of a word. Returns `None` if it has no such run,
    /// or another thread was faster.
    fn claim_run_in(&self, index: usize, len: u32) -> Option<SlotRun> {
        let word = self.word(index);
        // Relaxed: the exchange checks the value.
        let seen = SlotWord(word.load(Ordering::Relaxed));
        let start = lowest_run(!seen.claimed(), len)?;
        exchange(word, seen, seen.with_claimed(mask_of(start, len))).ok()?;
        Some(SlotRun { first: (index * SLOTS_PER_WORD) as u32 + start, count: len })
    }

    /// Claims the lowest run of free slots of a word from `bit` on, as long as it is.
    ///
    /// Returns `None` if there is none, or others are faster again and again.
    pub(crate) fn claim_free_run(&self, index: usize, bit: u32) -> Option<SlotRun> {
        for _ in 0..TRIES {
            let above = u32::MAX.checked_shl(bit).unwrap_or(0);
            let free = self.free_in(index) & above;
            if free == 0 {
                return None;
            }
            let start = free.trailing_zeros();
            let len = (free >> start).trailing_ones();
            let word = self.word(index);
            // Relaxed: the exchange checks the value.
            let seen = SlotWord(word.load(Ordering::Relaxed));
            let mask = mask_of(start, len);
            if seen.claimed() & mask == 0 && exchange(word, seen, seen.with_claimed(mask)).is_ok() {
                let first = (index * SLOTS_PER_WORD) as u32 + start;
                return Some(SlotRun { first, count: len });
            }
        }
        None
    }

    fn free_in(&self, index: usize) -> u32 {
        !SlotWord(self.word(index).load(Ordering::Relaxed)).claimed()
    }
}

impl SlotFree {
    /// Returns the change that frees `count` slots from this one on, which lie in its word.
    pub(crate) fn of_run(self, count: u32) -> SlotFree {
        // One is cleared already.
        let more = mask_of(self.bit(), count) - mask_of(self.bit(), 1);
        SlotFree::from_bits(self.to_bits() - u64::from(more))
    }
}

/// Returns the bits of `len` slots from `start` on.
fn mask_of(start: u32, len: u32) -> u32 {
    (u32::MAX >> (SLOTS_PER_WORD as u32 - len)) << start
}

/// Finds the lowest `len` adjacent bits, of 1 to 32, that are set.
fn lowest_run(bits: u32, len: u32) -> Option<u32> {
    let (mut starts, mut have) = (bits, 1);
    // A bit that is left begins a run of `have` bits.
    while have < len {
        let step = have.min(len - have);
        starts &= starts >> step;
        have += step;
    }
    (starts != 0).then(|| starts.trailing_zeros())
}

/// Returns the length of the longest run of bits that are set.
fn longest_run(mut bits: u32) -> u32 {
    let mut len = 0;
    while bits != 0 {
        bits &= bits << 1;
        len += 1;
    }
    len
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;
    use crate::slots::FreeOutcome;

    /// Checks each length against a search bit by bit.
    #[test]
    fn the_lowest_run_is_found() {
        let patterns =
            [0, 1, u32::MAX, 1 << 31, 0xF0F0_F0F0, 0x0001_FFFE, 0xAAAA_AAAA, 0x7FFF_FFFF];
        for bits in patterns {
            for len in 1..=32 {
                let is_run = |start: &u32| {
                    (0..len).all(|step| bits.checked_shr(start + step).unwrap_or(0) & 1 == 1)
                };
                assert_eq!(lowest_run(bits, len), (0..=32 - len).find(is_run), "{bits:x} {len}");
            }
            let longest = (1..=32).rev().find(|&len| lowest_run(bits, len).is_some()).unwrap_or(0);
            assert_eq!(longest_run(bits), longest, "{bits:x}");
        }
    }

    #[test]
    fn runs_are_claimed_in_address_order_and_the_longest_if_none_is_whole() {
        let bitmap = SlotBitmap::new(70).unwrap();
        let mut hint = 0;
        let mut claim =
            |wanted| bitmap.claim_run(&mut hint, wanted).map(|run| (run.first, run.count));
        assert_eq!(claim(20), Some((0, 20)));
        assert_eq!(claim(20), Some((32, 20)));
        // The first word has 12 left, the second too, and the third has 6 slots.
        assert_eq!(claim(16), Some((52, 12)));
        assert_eq!(claim(16), Some((20, 12)));
        assert_eq!(claim(40), Some((64, 6)));
        assert_eq!(claim(1), None);
        let (word, free) = bitmap.prepare_free(5);
        assert_eq!(free.of_run(10).free(word), FreeOutcome::Done);
        assert_eq!(bitmap.live(), 60);
        assert_eq!(claim(32), Some((5, 10)));
    }
}
