//! A block's way home, and the end of the map.
//!
//! Nobody counts the blocks in use. The free's last access is its exchange on the block's word;
//! the value it replaces says whether the map is closed and whether the word has drained. So
//! the step is prepared first and then done with nothing but the word in hand: after the exchange
//! the map may be gone.

use super::BuddyAllocator;
use super::levels::{At, Order};
use super::runs::longest_span;
use super::word::Word;
use crate::slots::word::FreeOutcome;
use crate::sync::{AtomicU64, Ordering};

/// What a free has to do to its word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockFree {
    mask: u32,
    level: u32,
    pinned: u32,
}

impl BuddyAllocator {
    /// Frees a block, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    pub(crate) fn free_ignoring_waiters(&self, first: u32, order: u32) -> FreeOutcome {
        let (word, free) = self.prepare_free(first, order);
        free.free_ignoring_waiters(word)
    }

    /// All that the free of a block needs besides its word.
    #[inline(always)] // into the free of a lease
    pub(crate) fn prepare_free(&self, first: u32, order: u32) -> (&AtomicU64, BlockFree) {
        let known = self.levels.order(order);
        let (At { index, .. }, bit) = self.levels.place(first, order);
        let step = BlockFree { mask: known.mask_at(bit), level: known.level, pinned: known.pinned };
        let shared = self.words.get(known.position(index));
        // A free that its thread remembers will most likely be gone back to: the hints need not
        // know. Others find it all the same, see `search`.
        let forgotten = match self.trails.of(order) {
            Some(trail) => trail.push_freed(index),
            None => Some(index),
        };
        if let Some(forgotten) = forgotten {
            self.tell(known, forgotten, if forgotten == index { step.mask } else { 0 });
        }
        (shared, step)
    }

    /// Lets the hints promise what is free in a word, `mask` included.
    pub(super) fn tell(&self, order: &Order, index: u32, mask: u32) {
        if !order.has_hint || self.hints.of(order, index) >= order.field_whole {
            return;
        }
        let word = Word::from_bits(self.words.get(order.position(index)).load(Ordering::Relaxed));
        // Sealed, it is its parent's, and the hints know. Below the top nothing is pinned.
        if word.is_sealed() {
            return;
        }
        if let Some(span) = longest_span(word.occupied(order.level) & !mask) {
            self.hints.raise(&self.levels, order.at(index), 4 * order.level + span);
        }
    }

    /// Words that must drain before a closed map is done with.
    pub(crate) fn word_count(&self) -> usize {
        self.levels.iter().count()
    }

    /// Closes every word; returns how many hold no claim and so are drained already.
    ///
    /// For the last handle only: nobody can claim any more, but others may be freeing.
    pub(crate) fn close(&self) -> usize {
        self.levels
            .iter()
            .filter(|&at| {
                // AcqRel: Acquire pairs with the frees' Release (`exchange`), so that who gives the
                // memory back because nothing was claimed sees the last owners' writes; Release
                // pairs with their Acquire, so that a free that learns of the closing sees what
                // came before.
                let before = self.word(at).fetch_or(Word::CLOSED_FLAG, Ordering::AcqRel);
                Word::from_bits(before).claimed(at.level) & !self.levels.pinned(at.level) == 0
            })
            .count()
    }

    /// Makes every later free answer [`FreeOutcome::HasWaiters`]. Any block may be part of the one that is
    /// waited for, so every word is marked.
    pub(crate) fn set_waiters_flags(&self) {
        for at in self.levels.iter() {
            // Acquire: as the exchange below, where the mark was set already.
            if !self.load(at).has_waiters() {
                // AcqRel: Acquire pairs with the Release of frees that came before the mark, so
                // that the look that follows sees them; Release publishes the waiter's entry to the
                // frees that see the mark.
                self.word(at).fetch_or(Word::WAITERS_FLAG, Ordering::AcqRel);
            }
        }
    }

    /// Takes the marks of [`set_waiters`](Self::set_waiters_flags) away again.
    pub(crate) fn clear_waiters_flags(&self) {
        for at in self.levels.iter() {
            if self.load(at).has_waiters() {
                // AcqRel: keeps the chain of the word's frees whole; see `set_waiters`.
                self.word(at).fetch_and(!Word::WAITERS_FLAG, Ordering::AcqRel);
            }
        }
    }
}

impl BlockFree {
    /// Frees the block unless somebody waits. Nothing of the allocator may be touched afterwards.
    #[inline]
    pub(crate) fn free(self, word: &AtomicU64) -> FreeOutcome {
        self.exchange(word, true)
    }

    /// Frees the block, also if somebody waits. Never returns [`FreeOutcome::HasWaiters`].
    #[inline]
    fn free_ignoring_waiters(self, word: &AtomicU64) -> FreeOutcome {
        self.exchange(word, false)
    }

    #[inline]
    fn exchange(self, shared: &AtomicU64, heed_waiters: bool) -> FreeOutcome {
        // Acquire, for the answer `HasWaiters`: pairs with the Release in `set_waiters_flags`.
        let mut now = Word::from_bits(shared.load(Ordering::Acquire));
        loop {
            if heed_waiters && now.has_waiters() {
                return FreeOutcome::HasWaiters;
            }
            assert!(
                now.claimed(self.level) & self.mask == self.mask,
                "block freed that is not claimed"
            );
            let after = now.without_claim(self.mask);
            // AcqRel: Release pairs with the Acquire of the next claim of these units (`claim_in`)
            // and of the last free; Acquire pairs with the Release of the closing and of the word's
            // other frees, whose blocks the last one gives back with its own.
            match shared.compare_exchange_weak(
                now.bits(),
                after.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if after.is_closed() && after.claimed(self.level) & !self.pinned == 0 => {
                    return FreeOutcome::ArenaDrained;
                }
                Ok(_) => return FreeOutcome::Done,
                Err(other) => now = Word::from_bits(other),
            }
        }
    }
}
