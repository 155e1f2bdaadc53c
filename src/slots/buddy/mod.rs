//! Blocks of variable size: runs of units in a tree of words.
//!
//! `docs/design-buddy.md` has the definitions, the invariants and the reasons. In short: a block
//! of order `k` is `1 << k` aligned units; it is claimed by setting its bits in one word of the
//! level that its order belongs to, and freed by clearing them. Neighbours that are both clear
//! *are* a larger block. Words below are handed down by their parent when smaller blocks are
//! wanted, and taken back by a larger claim that finds them empty.

mod census;
mod handover;
mod hints;
mod home;
mod levels;
mod lines;
mod pass;
mod runs;
mod search;
mod word;

#[cfg(all(test, uring_arena_loom))]
mod models;
#[cfg(all(test, not(uring_arena_loom)))]
mod tests;

use crate::sync::{AtomicU64, Ordering};
use hints::Hints;
use levels::{At, Levels, Order, first_unit};
use lines::{Lines, Trails};
use runs::find_run;
use word::Word;

/// The largest order that a map of blocks can have.
pub(crate) const BLOCK_ORDER_MAX: u32 = levels::ORDER_MAX;

/// Which units of a region are claimed, as blocks of `1 << order` units.
pub(crate) struct BuddyAllocator {
    levels: Levels,
    words: Lines,
    hints: Hints,
    trails: Trails,
    /// Words handed down, and taken back. Off the fast path.
    splits: AtomicU64,
    merges: AtomicU64,
}

impl BuddyAllocator {
    /// A map of `1 << max_order` units, all free. `None` if there is no memory for it.
    ///
    /// # Panics
    ///
    /// If `max_order` is above [`BLOCK_ORDER_MAX`].
    pub(crate) fn new(max_order: u32) -> Option<BuddyAllocator> {
        let levels = Levels::new(max_order);
        let root = levels.position(levels.root());
        // Everything belongs to the root at first: every other word is sealed.
        let first_word = |position| {
            if position == root { Word::FREE } else { Word::SEALED }
        };
        Some(BuddyAllocator {
            words: Lines::new(levels.words_total(), |position| first_word(position).bits())?,
            hints: Hints::new(&levels)?,
            splits: AtomicU64::new(0),
            merges: AtomicU64::new(0),
            trails: Trails::new(&levels),
            levels,
        })
    }

    /// Smallest blocks that the map books.
    pub(crate) fn min_block_count(&self) -> usize {
        1 << self.levels.max_order()
    }

    /// Words handed down to serve smaller blocks, and taken back to serve larger ones.
    pub(crate) fn splits_and_merges(&self) -> (u64, u64) {
        (self.splits.load(Ordering::Relaxed), self.merges.load(Ordering::Relaxed))
    }

    pub(crate) fn max_order(&self) -> u32 {
        self.levels.max_order()
    }

    /// Claims a block of `1 << order` units and gives its first unit.
    ///
    /// `None` means that at one instant during the call no block of that order was free.
    #[inline]
    pub(crate) fn claim(&self, order: u32) -> Option<u32> {
        if order > self.levels.max_order() {
            return None;
        }
        let known = self.levels.order(order);
        let Some(trail) = self.trails.of(order) else {
            return self.search(order);
        };
        while let Some(index) = trail.take_freed() {
            let found = self.claim_in(index, known);
            if found.is_some() {
                return found;
            }
        }
        self.claim_in(trail.served(), known).or_else(|| self.claim_elsewhere(trail, order))
    }

    /// Claims in this one word, if the word is not sealed and has a run of free bits.
    #[inline]
    fn claim_in(&self, index: u32, order: &Order) -> Option<u32> {
        let shared = self.words.get(order.position(index));
        // Relaxed: the exchange decides, and its Acquire is the one that counts.
        let mut now = Word::from_bits(shared.load(Ordering::Relaxed));
        loop {
            if now.is_sealed() {
                return None;
            }
            let bit = find_run(now.occupied(order.level) | order.pinned, order.span)?;
            // AcqRel: Acquire pairs with the Release of the free (`home::exchange`) whose bytes we
            // now own; Release keeps that chain whole for who frees the word's other blocks.
            match shared.compare_exchange_weak(
                now.bits(),
                now.with_claim(order.mask_at(bit)).bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(first_unit(order.at(index), bit)),
                Err(other) => now = Word::from_bits(other),
            }
        }
    }

    /// The bits of `word` that a claim may not touch.
    #[inline]
    fn occupied(&self, at: At, word: Word) -> u32 {
        word.occupied(at.level) | self.levels.pinned(at.level)
    }

    #[inline]
    fn word(&self, at: At) -> &AtomicU64 {
        self.words.get(self.levels.position(at))
    }

    /// Acquire pairs with the AcqRel of every change of a word: what is read after this load is
    /// not older than what the maker of the value had seen. The scans and the handing over rest
    /// on that.
    #[inline]
    fn load(&self, at: At) -> Word {
        Word::from_bits(self.word(at).load(Ordering::Acquire))
    }

    /// Replaces exactly `from`. AcqRel: see [`load`](Self::load).
    fn replace(&self, at: At, from: Word, to: Word) -> bool {
        self.word(at)
            .compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

impl std::fmt::Debug for BuddyAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuddyAllocator")
            .field("max_order", &self.max_order())
            .field("live_units", &self.live_units())
            .finish_non_exhaustive()
    }
}
