//! The tree of words, with the hints for its nodes.

use super::hints::Hints;
use super::levels::{Levels, NodeId, OrderInfo, first_min_block};
use super::runs::{longest_span, set_bits};
use super::word::{HintWord, PaddedWords, TreeWord, field, field_whole, order_of};
use crate::sync::{AtomicU64, Ordering};

/// A tree of words that records which smallest blocks are claimed.
pub(super) struct WordTree {
    pub(super) levels: Levels,
    words: PaddedWords,
    pub(super) hints: Hints,
    /// The number of splits so far. Off the fast path, as `merges`.
    pub(super) splits: AtomicU64,
    pub(super) merges: AtomicU64,
}

/// The outcome of one exchange that was to claim a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A block was claimed.
    Claimed(u32),
    /// The word is inactive, or has no run of free bits that is long enough.
    Nothing,
    /// Another thread was faster.
    Lost,
}

impl WordTree {
    /// Makes a tree of `1 << max_order` smallest blocks, all free. Returns `None` if there is no
    /// memory for it.
    pub(super) fn new(max_order: u32) -> Option<WordTree> {
        let levels = Levels::new(max_order);
        let root = levels.position(levels.root());
        // Everything belongs to the root at first: every other word is inactive.
        let first_word = |position| {
            if position == root { TreeWord::FREE } else { TreeWord::INACTIVE }
        };
        Some(WordTree {
            words: PaddedWords::new(levels.words_total(), |position| first_word(position).0)?,
            hints: Hints::new(&levels)?,
            splits: AtomicU64::new(0),
            merges: AtomicU64::new(0),
            levels,
        })
    }

    /// Returns the word number `index` of the level of `order`.
    #[inline]
    pub(super) fn word_of(&self, order: &OrderInfo, index: u32) -> &AtomicU64 {
        self.words.get(order.position(index))
    }

    #[inline]
    pub(super) fn word(&self, node: NodeId) -> &AtomicU64 {
        self.words.get(self.levels.position(node))
    }

    /// Reads a word.
    ///
    /// Acquire pairs with the AcqRel of every change of a word: a read after this load is not older
    /// than what the maker of the value had seen. The scans, the splits and the merges rest on
    /// that.
    #[inline]
    pub(super) fn load(&self, node: NodeId) -> TreeWord {
        TreeWord(self.word(node).load(Ordering::Acquire))
    }

    /// Replaces exactly `from`. Returns `false` if the word has another value.
    ///
    /// AcqRel: see [`load`](Self::load).
    pub(super) fn replace(&self, node: NodeId, from: TreeWord, to: TreeWord) -> bool {
        self.word(node).compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Returns the bits of `word` that a claim may not touch.
    #[inline]
    pub(super) fn occupied(&self, node: NodeId, word: TreeWord) -> u32 {
        word.occupied(node.level) | self.levels.pinned(node.level)
    }

    /// Claims a block in word number `index` of the level of `order`.
    ///
    /// Returns `None` if the word is inactive, or has no run of free bits that is long enough.
    pub(super) fn claim_in(&self, index: u32, order: &OrderInfo) -> Option<u32> {
        loop {
            match self.try_claim_in(index, order) {
                Attempt::Claimed(first) => return Some(first),
                Attempt::Nothing => return None,
                Attempt::Lost => {}
            }
        }
    }

    /// Claims a block in word number `index` of the level of `order`, by one exchange.
    #[inline(always)] // into its one caller on the fast path
    pub(super) fn try_claim_in(&self, index: u32, order: &OrderInfo) -> Attempt {
        let shared = self.word_of(order, index);
        // Relaxed: the exchange decides, and its Acquire is the one that counts.
        let now = TreeWord(shared.load(Ordering::Relaxed));
        if now.is_inactive() {
            return Attempt::Nothing;
        }
        let Some(bit) = order.runs.find(now.occupied(order.level) | order.pinned) else {
            return Attempt::Nothing;
        };
        // AcqRel. Acquire pairs with the Release of the free (`BlockFree::exchange`) whose bytes we
        // now own. Release keeps that chain whole for the frees of the word's other blocks.
        let to = now.with_claim(order.mask_at(bit)).0;
        match shared.compare_exchange(now.0, to, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Attempt::Claimed(first_min_block(order.node(index), bit)),
            Err(_) => Attempt::Lost,
        }
    }

    /// Claims exactly the bits of `mask`. Returns `false` if one of them is not free.
    pub(super) fn claim_exactly(&self, node: NodeId, mask: u32) -> bool {
        let mut now = self.load(node);
        while !now.is_inactive() && self.occupied(node, now) & mask == 0 {
            // AcqRel: as in `claim_in`.
            match self.word(node).compare_exchange_weak(
                now.0,
                now.with_claim(mask).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(other) => now = TreeWord(other),
            }
        }
        false
    }

    /// Returns `true` if nothing is claimed in the range of `mask`, bits of a word, or below it.
    ///
    /// A range that stays free is never taken for claimed, whatever others split and merge.
    pub(super) fn is_free(&self, node: NodeId, mask: u32) -> bool {
        let word = self.load(node);
        if word.is_inactive() && node.level < self.levels.top() {
            // It belongs to the parent, whose two bits may say `Claimed`.
            return self.is_free(node.parent(), 0b11 << (2 * node.child_number()));
        }
        let split = if node.level == 0 { 0 } else { word.split_children() };
        word.claimed(node.level) & mask == 0
            && set_bits(split)
                .filter(|child| mask & (0b11 << (2 * child)) != 0)
                .all(|child| self.is_empty(node.child(child)))
    }

    /// Returns `true` if nothing is claimed in a word whose parent is split, or below it.
    fn is_empty(&self, node: NodeId) -> bool {
        let word = self.load(node);
        if node.level == 0 {
            return word.state() == 0;
        }
        word.claimed(node.level) == 0
            && set_bits(word.split_children()).all(|child| self.is_empty(node.child(child)))
    }

    /// Raises the hints to what is free in word number `index` of the level of `order`, `mask`
    /// included.
    pub(super) fn raise_hint(&self, order: &OrderInfo, index: u32, mask: u32) {
        if !order.has_hint || self.hints.field_of(order, index) >= order.field_whole {
            return;
        }
        let word = TreeWord(self.word_of(order, index).load(Ordering::Relaxed));
        // An inactive word is its parent's, and the hints have it. Below the top nothing is pinned.
        if word.is_inactive() {
            return;
        }
        if let Some(span) = longest_span(word.occupied(order.level) & !mask) {
            self.hints.raise(&self.levels, order.node(index), 4 * order.level + span);
        }
    }

    /// Lowers the hint for a child to what the child looks like now, and looks once more: a free
    /// that saw the old hint did not raise it.
    pub(super) fn lower_hint(&self, node: NodeId, child: u32, seen: HintWord) {
        let below = node.child(child);
        if below.level == 0 {
            return;
        }
        let estimate = self.estimate(below);
        let to = estimate.map_or(0, |order| field(below.level, order));
        if self.hints.lower(&self.levels, node, seen, child, to)
            && let Some(now) = self.estimate(below)
            && Some(now) > estimate
        {
            self.hints.raise(&self.levels, below, now);
        }
    }

    /// Estimates the largest order that is free in a word and below it, by the word's state and its
    /// hints.
    pub(super) fn estimate(&self, node: NodeId) -> Option<u32> {
        let word = self.load(node);
        let own = |occupied| longest_span(occupied).map(|span| 4 * node.level + span);
        let occupied = self.occupied(node, word);
        if node.level == 0 || word.split_children() == 0 {
            return own(occupied);
        }
        let split = word.split_children();
        let (whole, largest) = if node.level == 1 {
            let row = |child| self.load(node.child(child)).state();
            let empty = set_bits(split)
                .filter(|&child| row(child) == 0)
                .fold(0, |whole, child| whole | (1 << child));
            (empty, set_bits(split).filter_map(|child| longest_span(row(child))).max())
        } else {
            let hints = self.hints.load(&self.levels, node);
            (
                hints.at_least(field_whole(node.level - 1)),
                order_of(node.level - 1, hints.largest(split)),
            )
        };
        let mergeable = set_bits(split & whole).fold(0, |bits, child| bits | (0b11 << (2 * child)));
        own(occupied & !mergeable).max(largest)
    }
}
