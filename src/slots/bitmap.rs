//! The books of a fixed arena: which of N slots are claimed.

use crossbeam_utils::CachePadded;

use super::word::{self, FreeStep, SLOTS_PER_WORD, Word};
use crate::sync::{AtomicU32, AtomicU64, Ordering, thread_index};

/// Slots that one map can book: their numbers fit in 31 bits.
pub(crate) const SLOTS_MAX: usize = 1 << 31;

/// Threads with a preferred word of their own; further threads share.
const HINTS: usize = 16;

/// Below this many words each one gets two cache lines of its own (one, and the one that the
/// prefetcher pairs with it); above it they stand side by side, so that a search stays short.
const SPREAD_WORDS_MAX: usize = 1024;

/// log2 of the distance between two spread words, in words: 16 × 8 bytes = 128 bytes.
const SPREAD_SHIFT: u32 = 4;

/// Which slots of an arena are claimed.
///
/// Invariants: a bit is set exactly while its slot has an owner, or for ever when the slot does not
/// exist; `words.len() == word_count << shift`.
pub(crate) struct SlotBitmap {
    words: Box<[AtomicU64]>,
    shift: u32,
    word_count: usize,
    slot_count: usize,
    /// The word that each thread found a free slot in last. Read by its threads only, so that the
    /// line stays in their cache; written only when it changes.
    hints: [CachePadded<AtomicU32>; HINTS],
}

impl SlotBitmap {
    /// Allocator for `slot_count` free slots. `None` if there is no memory for them.
    pub(crate) fn new(slot_count: usize) -> Option<SlotBitmap> {
        assert!(slot_count > 0 && slot_count <= SLOTS_MAX);
        let word_count = slot_count.div_ceil(SLOTS_PER_WORD);
        let shift = if word_count <= SPREAD_WORDS_MAX { SPREAD_SHIFT } else { 0 };
        let mut words = Vec::new();
        words.try_reserve_exact(word_count << shift).ok()?;
        for place in 0..word_count << shift {
            let slots = slots_in_word(slot_count, place >> shift);
            words.push(AtomicU64::new(Word::with_slots(slots).0));
        }
        let hints = std::array::from_fn(|hint| {
            CachePadded::new(AtomicU32::new(first_word(hint, word_count)))
        });
        Some(SlotBitmap { words: words.into_boxed_slice(), shift, word_count, slot_count, hints })
    }

    /// Slots that the map books, claimed or not.
    pub(crate) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Words that must drain before a closed map is done with.
    pub(crate) fn word_count(&self) -> usize {
        self.word_count
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at << self.shift]
    }

    /// The word of a slot, and what frees the slot in it: all that freeing touches.
    pub(crate) fn place_of(&self, slot: u32) -> (&AtomicU64, FreeStep) {
        let at = slot as usize / SLOTS_PER_WORD;
        (self.word(at), FreeStep::of(slot % SLOTS_PER_WORD as u32))
    }

    /// Claims a slot. `None` only if there was an instant during the call at which none was free.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim(&self) -> Option<u32> {
        let hint = &self.hints[thread_index() % HINTS];
        // Relaxed: a hint may be stale, it only chooses where the search begins.
        let at = hint.load(Ordering::Relaxed) as usize;
        let word = self.word(at);
        let seen = Word(word.load(Ordering::Relaxed));
        if let Some(bit) = seen.lowest_free()
            && word::exchange(word, seen, seen.claiming(1 << bit)).is_ok()
        {
            return Some(slot_number(at, bit));
        }
        self.search(hint, at, 1).map(|(at, mask)| slot_number(at, mask.trailing_zeros()))
    }

    /// Claims up to `wanted` slots of one word: its first slot, and which of the 32 from there.
    /// `None` as for [`claim`](Self::claim).
    pub(crate) fn claim_many(&self, wanted: usize) -> Option<(u32, u32)> {
        let hint = &self.hints[thread_index() % HINTS];
        // Relaxed: as in `claim`.
        let at = hint.load(Ordering::Relaxed) as usize;
        let word = self.word(at);
        let seen = Word(word.load(Ordering::Relaxed));
        let mask = seen.lowest_free_many(wanted);
        if mask != 0 && word::exchange(word, seen, seen.claiming(mask)).is_ok() {
            return Some((slot_number(at, 0), mask));
        }
        self.search(hint, at, wanted).map(|(at, mask)| (slot_number(at, 0), mask))
    }

    /// Looks at all words from `start` on; claims up to `wanted` slots of the first that has any.
    ///
    /// One pass over full words proves nothing: a slot behind us may be freed while the last one
    /// before us is claimed. Two passes that find every word full and the same number of frees in
    /// all of them do: every word was full from its first look to its second, so all were full
    /// when the first pass ended. Looks are Acquire, and claims are Release, so that who sees the
    /// claim that filled a word sees the frees that its thread did before.
    ///
    /// Lock-free: a further pass is needed only when another thread has freed a slot.
    #[cold]
    fn search(&self, hint: &AtomicU32, start: usize, wanted: usize) -> Option<(usize, u32)> {
        loop {
            let frees = match self.claim_from(start, wanted) {
                Ok((at, mask)) => {
                    if at != start {
                        hint.store(at as u32, Ordering::Relaxed);
                    }
                    return Some((at, mask));
                }
                Err(frees) => frees,
            };
            if self.frees_if_full() == Some(frees) {
                return None;
            }
        }
    }

    /// Claims up to `wanted` slots of the first word from `start` on that has any; else gives the
    /// frees seen in all words.
    fn claim_from(&self, start: usize, wanted: usize) -> Result<(usize, u32), u64> {
        let mut frees = 0;
        let (before, from) = self.words.split_at(start << self.shift);
        for (first, words) in [(start, from), (0, before)] {
            if let Some((at, mask)) = self.claim_among(words, wanted, &mut frees) {
                return Ok((first + at, mask));
            }
        }
        Err(frees)
    }

    /// The same among some words, one after another: by their number from the first of them. Adds
    /// the frees seen to `frees`.
    #[inline]
    fn claim_among(
        &self,
        words: &[AtomicU64],
        wanted: usize,
        frees: &mut u64,
    ) -> Option<(usize, u32)> {
        let mut place = 0;
        while place < words.len() {
            let word = &words[place];
            let mut seen = Word(word.load(Ordering::Acquire));
            while !seen.is_full() {
                let mask = seen.lowest_free_many(wanted);
                match word::exchange(word, seen, seen.claiming(mask)) {
                    Ok(()) => return Some((place >> self.shift, mask)),
                    Err(now) => seen = now,
                }
            }
            *frees = frees.wrapping_add(seen.version());
            place += 1 << self.shift;
        }
        None
    }

    /// The frees seen in all words, if each of them was full.
    fn frees_if_full(&self) -> Option<u64> {
        let mut frees = 0u64;
        let mut place = 0;
        while place < self.words.len() {
            let seen = Word(self.words[place].load(Ordering::Acquire));
            if !seen.is_full() {
                return None;
            }
            frees = frees.wrapping_add(seen.version());
            place += 1 << self.shift;
        }
        Some(frees)
    }

    /// Closes every word; returns how many hold no claim and so are drained already.
    ///
    /// For the last handle only: nobody can claim any more, but others may be freeing.
    pub(crate) fn close(&self) -> usize {
        (0..self.word_count)
            .filter(|&at| word::close(self.word(at), slots_in_word(self.slot_count, at)))
            .count()
    }

    /// Claimed slots now, each word at its own instant.
    pub(crate) fn live(&self) -> usize {
        (0..self.word_count)
            .map(|at| {
                let missing = SLOTS_PER_WORD - slots_in_word(self.slot_count, at);
                let claimed = Word(self.word(at).load(Ordering::Acquire)).claimed();
                claimed.count_ones() as usize - missing
            })
            .sum()
    }

    /// Hands each claimed slot to `each`: every word as it was at one instant.
    pub(crate) fn each_claimed(&self, mut each: impl FnMut(u32)) {
        for at in 0..self.word_count {
            let missing = SLOTS_PER_WORD - slots_in_word(self.slot_count, at);
            // Slots that do not exist are the word's highest bits.
            let exist = u32::MAX >> missing;
            let mut claimed = Word(self.word(at).load(Ordering::Acquire)).claimed() & exist;
            while claimed != 0 {
                each(slot_number(at, claimed.trailing_zeros()));
                claimed &= claimed - 1;
            }
        }
    }

    /// Asks every word to tell of its frees.
    pub(crate) fn set_waiters(&self) {
        for at in 0..self.word_count {
            word::set_waiters(self.word(at));
        }
    }

    /// Takes the request of [`set_waiters`](Self::set_waiters) back; the caller looks for waiters
    /// again afterwards.
    pub(crate) fn clear_waiters(&self) {
        for at in 0..self.word_count {
            word::clear_waiters(self.word(at));
        }
    }
}

#[inline]
fn slot_number(at: usize, bit: u32) -> u32 {
    (at * SLOTS_PER_WORD) as u32 + bit
}

fn slots_in_word(slot_count: usize, at: usize) -> usize {
    (slot_count - at * SLOTS_PER_WORD).min(SLOTS_PER_WORD)
}

/// The word that the threads of hint number `hint` start at: bit-reversed, so that the first few
/// are far apart.
fn first_word(hint: usize, word_count: usize) -> u32 {
    let reversed = (hint as u32).reverse_bits() >> (u32::BITS - HINTS.trailing_zeros());
    (reversed as usize * word_count / HINTS) as u32
}
