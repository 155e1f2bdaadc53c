//! The allocator of a fixed arena: one bit for each of N equal slots.
//!
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
//! that fails rests its answer on that (see [`SlotBitmap::search`]).

use crate::sync::{AtomicU32, AtomicU64, Ordering, thread_index};
use crossbeam_utils::CachePadded;

/// The largest number of slots in one bitmap: their headers fit in 2 GiB, with the core before them
/// (see `lease::core`).
pub(crate) const SLOTS_MAX: usize = (1 << 25) - 1024;

/// The number of threads that have a preferred word of their own; further threads share.
const HINTS: usize = if cfg!(uring_arena_loom) { 16 } else { 64 };

/// The number of exchanges that a search tries in one word before it goes on.
const TRIES: usize = 40;

/// The largest number of words that are spread out: two cache lines each, its own and the one that
/// the prefetcher pairs with it. Above it the words stand side by side, so that a search is short.
const SPREAD_WORDS_MAX: usize = 1024;

/// The logarithm of the distance between two spread words, in words: 16 × 8 bytes = 128 bytes.
const SPREAD_SHIFT: u32 = 4;

/// The outcome of a search for free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Search<T> {
    /// A claim was made.
    Found(T),
    /// There was an instant during the search at which nothing that serves was free.
    Full,
    /// Nothing was found, and others freed or claimed so much meanwhile that this proves nothing.
    Unsettled,
}

impl<T> Search<T> {
    /// Applies `change` to what was found.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Search<U> {
        match self {
            Search::Found(found) => Search::Found(change(found)),
            Search::Full => Search::Full,
            Search::Unsettled => Search::Unsettled,
        }
    }
}

/// Counts a pass over all words, in a build for tests.
#[inline]
pub(super) fn note_pass() {
    #[cfg(all(test, not(uring_arena_loom)))]
    PASSES.with(|passes| passes.set(passes.get() + 1));
}

#[cfg(all(test, not(uring_arena_loom)))]
thread_local! {
    static PASSES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Returns the passes that this thread made since the last call.
#[cfg(all(test, not(uring_arena_loom)))]
pub(crate) fn take_passes() -> usize {
    PASSES.with(|passes| passes.replace(0))
}

/// A group of slots of one word: those whose bits are set in `mask`, counted from `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotGroup {
    /// The first slot of the word.
    pub(crate) first: u32,
    pub(crate) mask: u32,
}

impl SlotGroup {
    /// Returns the lowest slot of the group.
    pub(crate) fn lowest(self) -> u32 {
        self.first + self.mask.trailing_zeros()
    }
}

/// A set of N slots that records which of them are claimed.
// Invariants:
// 1. A bit is set exactly while its slot has an owner, or for ever if the slot does not exist.
// 2. `words.len() == word_count << shift`.
pub(crate) struct SlotBitmap {
    words: Box<[AtomicU64]>,
    shift: u32,
    word_count: usize,
    slot_count: usize,
    /// The word in which each thread found a free slot last. Only the threads of a hint read it, so
    /// that its line stays in their cache; it is written only when it changes.
    hints: [CachePadded<AtomicU32>; HINTS],
}

impl SlotBitmap {
    /// Makes a bitmap of `slot_count` free slots. Returns `None` if there is no memory for it.
    pub(crate) fn new(slot_count: usize) -> Option<SlotBitmap> {
        assert!(slot_count > 0 && slot_count <= SLOTS_MAX);
        let word_count = slot_count.div_ceil(SLOTS_PER_WORD);
        let shift = if word_count <= SPREAD_WORDS_MAX { SPREAD_SHIFT } else { 0 };
        let mut words = Vec::new();
        words.try_reserve_exact(word_count << shift).ok()?;
        for position in 0..word_count << shift {
            let slots = slots_in_word(slot_count, position >> shift);
            words.push(AtomicU64::new(SlotWord::with_slots(slots).0));
        }
        let hints = std::array::from_fn(|hint| {
            CachePadded::new(AtomicU32::new(first_word(hint, word_count)))
        });
        Some(SlotBitmap { words: words.into_boxed_slice(), shift, word_count, slot_count, hints })
    }

    /// Returns the number of slots, claimed or free.
    pub(crate) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Returns the number of words that must drain before a closed bitmap may be dropped.
    pub(crate) fn word_count(&self) -> usize {
        self.word_count
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[index << self.shift]
    }

    /// Returns the word of a slot and the change that frees the slot in it.
    pub(crate) fn prepare_free(&self, slot: u32) -> (&AtomicU64, SlotFree) {
        let index = slot as usize / SLOTS_PER_WORD;
        (self.word(index), SlotFree::new(slot % SLOTS_PER_WORD as u32))
    }

    /// Frees a slot, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    pub(super) fn free_ignoring_waiters(&self, slot: u32) -> FreeOutcome {
        let (word, free) = self.prepare_free(slot);
        free.free_ignoring_waiters(word)
    }

    /// Claims a slot in the word in which this thread found one last.
    ///
    /// Returns `None` if that word is full, or another thread was faster: [`search`](Self::search)
    /// tells more, and parts the two.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim_hinted(&self) -> Option<u32> {
        // Relaxed: a hint may be stale, it only chooses where the search begins.
        let index = self.hint().load(Ordering::Relaxed) as usize;
        let word = self.word(index);
        let seen = SlotWord(word.load(Ordering::Relaxed));
        let bit = seen.lowest_free()?;
        exchange(word, seen, seen.with_claimed(1 << bit)).ok()?;
        Some(slot_number(index, bit))
    }

    /// Has this thread claim in the word that it began with, if that has a free slot: no other
    /// begins there.
    ///
    /// While the arena was nearly full the hints of many threads came to the few words that had
    /// free slots. Where they share a word, or a claim is the last of many in it, they part.
    #[cold]
    pub(crate) fn go_home(&self) {
        let home = self.home();
        if !self.is_full(home) {
            set_hint(self.hint(), home);
        }
    }

    /// Returns the word that the threads of this hint begin with.
    fn home(&self) -> usize {
        first_word(thread_index() % HINTS, self.word_count) as usize
    }

    /// Returns the word in which a thread claims next that found a slot in its hint's word by a
    /// search: another thread works there too. It was faster, or it freed in between.
    ///
    /// This thread goes home, or, if there is nothing, to the words behind. At home it stays: the
    /// other one goes.
    #[cold]
    fn apart_from(&self, shared: usize) -> usize {
        let home = self.home();
        if shared == home || !self.is_full(home) { home } else { (shared + 1) % self.word_count }
    }

    /// Returns `true` if a word looks full.
    #[inline]
    fn is_full(&self, index: usize) -> bool {
        // Relaxed: for a choice of where to look, not for an answer.
        SlotWord(self.word(index).load(Ordering::Relaxed)).is_full()
    }

    /// Claims up to `wanted` slots of the word in which this thread found some last.
    ///
    /// Returns `None` as [`claim_hinted`](Self::claim_hinted) does.
    #[inline]
    pub(crate) fn claim_many_hinted(&self, wanted: usize) -> Option<SlotGroup> {
        // Relaxed: as in `claim_hinted`.
        let index = self.hint().load(Ordering::Relaxed) as usize;
        let word = self.word(index);
        let seen = SlotWord(word.load(Ordering::Relaxed));
        let mask = seen.lowest_free_many(wanted);
        if mask == 0 {
            return None;
        }
        exchange(word, seen, seen.with_claimed(mask)).ok()?;
        Some(SlotGroup { first: slot_number(index, 0), mask })
    }

    /// Returns the word at which this thread begins to search.
    #[inline]
    fn start(&self) -> usize {
        // Relaxed: as in `claim_hinted`.
        self.hint().load(Ordering::Relaxed) as usize
    }

    /// Returns the hint of this thread.
    #[inline(always)]
    fn hint(&self) -> &AtomicU32 {
        &self.hints[thread_index() % HINTS]
    }

    /// Claims up to `wanted` slots of one word, in at most two passes over all words.
    ///
    /// One pass over full words proves nothing: a slot behind the search may be freed while the
    /// last one before it is claimed. Two passes that find every word full and the same number of
    /// frees are a proof. Every word was full from its first read to its second, so all were full
    /// when the first pass ended. Reads are Acquire and claims are Release: a search that sees the
    /// claim which filled a word also sees the earlier frees of that claim's thread.
    ///
    /// Passes that differ prove nothing either, and others may free for ever: so there is no third.
    #[cold]
    pub(crate) fn search(&self, wanted: usize) -> Search<SlotGroup> {
        let start = self.start();
        let first = match self.pass(start, wanted, TRIES) {
            Ok(found) => return Search::Found(found),
            Err(frees) => frees,
        };
        match self.pass(start, wanted, TRIES) {
            Ok(found) => Search::Found(found),
            Err(frees) if first.is_some() && frees == first => Search::Full,
            Err(_) => Search::Unsettled,
        }
    }

    /// Claims up to `wanted` slots of one word, in one pass over all words. `None` proves nothing.
    #[cold]
    pub(crate) fn look(&self, wanted: usize) -> Option<SlotGroup> {
        self.pass(self.start(), wanted, TRIES).ok()
    }

    /// Claims a slot, in one pass over all words, while nobody frees: so `None` is exact.
    ///
    /// Each exchange that fails in a word is the claim of one of its 32 slots.
    #[cold]
    pub(super) fn claim_still(&self) -> Option<u32> {
        self.pass(self.start(), 1, usize::MAX).ok().map(SlotGroup::lowest)
    }

    /// Claims up to `wanted` slots of the first word that has any, from word `start` on.
    ///
    /// Returns the frees seen in all words if nothing was free, or `None` if a word changed in
    /// `tries` exchanges and was left.
    #[inline(always)] // twice into `search`
    fn pass(&self, start: usize, wanted: usize, tries: usize) -> Result<SlotGroup, Option<u64>> {
        note_pass();
        let shift = self.shift;
        let (before, from) = self.words.split_at(start << shift);
        let (mut found, mut frees, mut is_settled) = claim_among(from, shift, wanted, tries);
        let mut first = start;
        if found.is_none() && !before.is_empty() {
            let (frees_before, is_settled_before);
            (found, frees_before, is_settled_before) = claim_among(before, shift, wanted, tries);
            frees = frees.wrapping_add(frees_before);
            is_settled &= is_settled_before;
            first = 0;
        }
        match found {
            None => Err(is_settled.then_some(frees)),
            Some((index, mask)) => Ok(self.found_by_search(start, first + index, mask)),
        }
    }

    /// Returns the slots of `mask` that a search from word `start` claimed in word `index`. The
    /// hint moves there, or apart.
    #[cold]
    fn found_by_search(&self, start: usize, index: usize, mask: u32) -> SlotGroup {
        set_hint(self.hint(), if index == start { self.apart_from(start) } else { index });
        SlotGroup { first: slot_number(index, 0), mask }
    }

    /// Closes every word. Returns how many hold no claim and so are drained already.
    ///
    /// Only the last handle calls this: nobody can claim any more, but other threads may be
    /// freeing.
    pub(crate) fn close(&self) -> usize {
        (0..self.word_count)
            .filter(|&index| close_word(self.word(index), slots_in_word(self.slot_count, index)))
            .count()
    }

    /// Counts the claimed slots, each word at an instant of its own.
    pub(crate) fn live(&self) -> usize {
        (0..self.word_count).map(|index| self.claimed_in(index).count_ones() as usize).sum()
    }

    /// Hands each claimed slot to `each`: every word as it was at one instant.
    pub(crate) fn for_each_claimed(&self, mut each: impl FnMut(u32)) {
        for index in 0..self.word_count {
            let mut claimed = self.claimed_in(index);
            while claimed != 0 {
                each(slot_number(index, claimed.trailing_zeros()));
                claimed &= claimed - 1;
            }
        }
    }

    /// Reads which slots of a word are claimed, as a mask.
    fn claimed_in(&self, index: usize) -> u32 {
        // Slots that do not exist are the highest bits of the word.
        let exist = u32::MAX >> (SLOTS_PER_WORD - slots_in_word(self.slot_count, index));
        SlotWord(self.word(index).load(Ordering::Acquire)).claimed() & exist
    }

    /// Sets the `WAITERS` flag of every word: later frees offer their slot to the wait queue.
    pub(crate) fn set_waiters_flags(&self) {
        (0..self.word_count).for_each(|index| set_waiters_flag(self.word(index)));
    }

    /// Clears the `WAITERS` flag of every word.
    pub(crate) fn clear_waiters_flags(&self) {
        (0..self.word_count).for_each(|index| clear_waiters_flag(self.word(index)));
    }
}

#[cfg(test)]
impl SlotBitmap {
    /// Claims a slot, by as many searches as it takes.
    pub(crate) fn claim(&self) -> Option<u32> {
        self.claim_hinted().or_else(|| {
            loop {
                match self.search(1) {
                    Search::Found(found) => return Some(found.lowest()),
                    Search::Full => return None,
                    Search::Unsettled => {}
                }
            }
        })
    }
}

/// Sets the hint of a thread. Its line is written only if it changes: it stays in the caches of all
/// threads of the hint.
fn set_hint(hint: &AtomicU32, index: usize) {
    // Relaxed: hints only choose where to look.
    if hint.load(Ordering::Relaxed) as usize != index {
        hint.store(index as u32, Ordering::Relaxed);
    }
}

#[inline]
fn slot_number(word_index: usize, bit: u32) -> u32 {
    (word_index * SLOTS_PER_WORD) as u32 + bit
}

fn slots_in_word(slot_count: usize, word_index: usize) -> usize {
    (slot_count - word_index * SLOTS_PER_WORD).min(SLOTS_PER_WORD)
}

/// Returns the word at which the threads of hint number `hint` start: bit-reversed, so that the
/// first few are far apart.
fn first_word(hint: usize, word_count: usize) -> u32 {
    let reversed = (hint as u32).reverse_bits() >> (u32::BITS - HINTS.trailing_zeros());
    (reversed as usize * word_count / HINTS) as u32
}

/// The number of slots in one word.
pub(crate) const SLOTS_PER_WORD: usize = 32;

const SLOTS: u64 = (1 << SLOTS_PER_WORD) - 1;
const CLOSED: u64 = 1 << 32;
const WAITERS: u64 = 1 << 33;
const ONE_FREE: u64 = 1 << 34;

/// The value of a gate: a word that [`SlotFree::try_free_fast`] leaves alone.
pub(crate) const GATE: u64 = WAITERS;

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

    /// Makes the mark of slot `number` of a batch. A gate stands in the place of its word, which
    /// lets no fast free pass.
    pub(crate) fn of_batch(number: u32) -> SlotFree {
        debug_assert!(number < SLOTS_PER_WORD as u32);
        SlotFree(number.into())
    }

    /// Returns the number of the slot in its batch, unless it is in none.
    #[inline]
    pub(crate) fn number_in_batch(self) -> Option<u32> {
        // The change of a slot that is in no batch is at least 2³³.
        (self.0 < SLOTS_PER_WORD as u64).then_some(self.0 as u32)
    }

    /// Returns the bit of the slot in its word.
    pub(crate) fn bit(self) -> u32 {
        self.0.trailing_zeros()
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
    pub(crate) fn free_ignoring_waiters(self, word: &AtomicU64) -> FreeOutcome {
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

/// Claims up to `wanted` slots of the first of `words` that has any: its index and their mask.
///
/// Also returns the frees in the words that were full, and `false` if a word changed in `tries`
/// exchanges and was left. All by value and in locals: a refused claim is this loop, twice.
#[inline]
fn claim_among(
    words: &[AtomicU64],
    shift: u32,
    wanted: usize,
    tries: usize,
) -> (Option<(usize, u32)>, u64, bool) {
    let (mut frees, mut is_settled, mut position) = (0u64, true, 0);
    while let Some(word) = words.get(position) {
        let mut seen = SlotWord(word.load(Ordering::Acquire));
        if !seen.is_full() {
            match claim_in(word, seen, wanted, tries) {
                Ok(mask) => return (Some((position >> shift, mask)), frees, is_settled),
                Err(Some(full)) => seen = full,
                Err(None) => is_settled = false,
            }
        }
        frees = frees.wrapping_add(seen.frees());
        position += 1 << shift;
    }
    (None, frees, is_settled)
}

/// Claims up to `wanted` slots of a word that was seen with free ones. Returns their mask.
///
/// The error is the word if it is full, or `None` if it changed in `tries` exchanges.
#[cold]
fn claim_in(
    word: &AtomicU64,
    mut seen: SlotWord,
    wanted: usize,
    tries: usize,
) -> Result<u32, Option<SlotWord>> {
    for _ in 0..tries {
        if seen.is_full() {
            return Err(Some(seen));
        }
        let mask = seen.lowest_free_many(wanted);
        match exchange(word, seen, seen.with_claimed(mask)) {
            Ok(()) => return Ok(mask),
            Err(now) => seen = now,
        }
    }
    Err(None)
}

/// Closes a word whose slots are the lowest `slots`. Returns `true` if it holds no claim.
///
/// The bits of slots that do not exist are cleared in the same write: an empty word then reads as
/// drained.
pub(super) fn close_word(word: &AtomicU64, slots: usize) -> bool {
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

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn free(bitmap: &SlotBitmap, slot: u32) -> FreeOutcome {
        let (word, free) = bitmap.prepare_free(slot);
        free.free(word)
    }

    #[test]
    fn every_slot_count_serves_exactly_that_many_claims() {
        let large: &[usize] = if cfg!(miri) { &[65] } else { &[65, 1000, 1024, 40_000] };
        for &slot_count in [1, 2, 31, 32, 33, 63, 64].iter().chain(large) {
            let bitmap = SlotBitmap::new(slot_count).unwrap();
            let claimed: BTreeSet<u32> = std::iter::from_fn(|| bitmap.claim()).collect();
            assert_eq!(claimed.len(), slot_count);
            assert_eq!(claimed.last().copied(), Some(slot_count as u32 - 1));
            assert_eq!(bitmap.live(), slot_count);
            assert_eq!(bitmap.claim(), None);
            for slot in claimed {
                assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
            }
            assert_eq!(bitmap.live(), 0);
        }
    }

    #[test]
    fn a_freed_slot_is_claimed_next() {
        let bitmap = SlotBitmap::new(100).unwrap();
        let first = bitmap.claim().unwrap();
        assert_eq!(free(&bitmap, first), FreeOutcome::Done);
        assert_eq!(bitmap.claim(), Some(first));
    }

    #[test]
    fn claim_many_takes_what_one_word_has() {
        let bitmap = SlotBitmap::new(40).unwrap();
        let mut slots = Vec::new();
        let claim = || bitmap.claim_many_hinted(20).or_else(|| bitmap.look(20));
        while let Some(SlotGroup { first, mask }) = claim() {
            assert!(mask.count_ones() <= 20);
            slots.extend((0..32).filter(|bit| mask & 1 << bit != 0).map(|bit| first + bit));
        }
        slots.sort_unstable();
        assert_eq!(slots, (0..40).collect::<Vec<u32>>());
    }

    #[test]
    fn a_closed_bitmap_drains_each_word_once() {
        let bitmap = SlotBitmap::new(40).unwrap();
        let slots: Vec<u32> = std::iter::from_fn(|| bitmap.claim()).take(34).collect();
        assert_eq!(bitmap.close(), 0);
        let drained =
            slots.iter().filter(|&&slot| free(&bitmap, slot) == FreeOutcome::ArenaDrained).count();
        assert_eq!(drained, 2);
    }

    #[test]
    fn a_word_with_waiters_is_freed_only_by_a_free_that_ignores_them() {
        let bitmap = SlotBitmap::new(2).unwrap();
        let slot = bitmap.claim().unwrap();
        bitmap.set_waiters_flags();
        assert_eq!(free(&bitmap, slot), FreeOutcome::HasWaiters);
        assert_eq!(bitmap.live(), 1);
        assert_eq!(bitmap.free_ignoring_waiters(slot), FreeOutcome::Done);
        assert_eq!(bitmap.live(), 0);
        bitmap.clear_waiters_flags();
        let slot = bitmap.claim().unwrap();
        assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
    }

    /// The hint of each thread comes to one word, because only that has free slots. When all are
    /// free again, a claim that another thread was faster in goes home, and stays there.
    #[test]
    fn a_claim_that_lost_its_exchange_goes_home() {
        const THREADS: usize = 4;
        let bitmap = SlotBitmap::new(1024).unwrap();
        let held: Vec<u32> = std::iter::from_fn(|| bitmap.claim()).collect();
        let crowded = |slot: u32| slot / 32 == 5;
        held.iter().filter(|&&slot| crowded(slot)).for_each(|&slot| {
            assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
        });
        let barrier = std::sync::Barrier::new(THREADS + 1);
        // One after the other: threads of one hint would see each other's moves.
        let homes = std::sync::Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let slot = bitmap.claim().unwrap();
                    assert!(crowded(slot));
                    assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
                    barrier.wait();
                    barrier.wait();
                    let mut homes = homes.lock().unwrap();
                    let home = bitmap.home();
                    if !homes.insert(home) {
                        return;
                    }
                    assert!(crowded(bitmap.claim_hinted().unwrap()));
                    // As after an exchange that another thread won: here, and elsewhere next.
                    let Search::Found(found) = bitmap.search(1) else { panic!("slots are free") };
                    assert!(crowded(found.lowest()));
                    for _ in 0..2 {
                        let slot = bitmap.claim_hinted().unwrap();
                        assert_eq!(slot as usize / SLOTS_PER_WORD, home);
                        let Search::Found(found) = bitmap.search(1) else { panic!("at home") };
                        assert_eq!(found.first as usize / SLOTS_PER_WORD, home);
                    }
                });
            }
            barrier.wait();
            held.iter().filter(|&&slot| !crowded(slot)).for_each(|&slot| {
                assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
            });
            barrier.wait();
        });
    }

    /// Each thread holds one slot at a time, and there are as many threads as slots. No claim may
    /// fail, though slots are freed behind a search and claimed before it.
    #[test]
    fn as_many_threads_as_slots_never_see_a_full_bitmap() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        for slot_count in [1usize, 3, 33, 65] {
            let threads = slot_count.min(4);
            let bitmap = SlotBitmap::new(slot_count).unwrap();
            let held: Vec<u32> = (threads..slot_count).map(|_| bitmap.claim().unwrap()).collect();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for _ in 0..rounds {
                            let slot = bitmap.claim().expect("one slot for each thread");
                            assert_eq!(free(&bitmap, slot), FreeOutcome::Done);
                        }
                    });
                }
            });
            assert_eq!(bitmap.live(), held.len());
        }
    }
}
