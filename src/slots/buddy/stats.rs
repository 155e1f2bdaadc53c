//! The numbers of the whole tree: for metrics and for tests. They are exact while nobody claims or
//! frees.

use super::allocator::BuddyAllocator;
use super::levels::{NodeId, first_min_block, span_of};
use super::runs::{SPAN_MAX, count_runs, longest_span, run_mask, set_bits};
use super::word::{CHILDREN, Child, TreeWord};
use crate::sync::Ordering;

/// A summary of a word and all words below it.
#[derive(Debug, Clone, Copy)]
struct SubtreeStats {
    is_empty: bool,
    /// The order of the largest free block.
    largest: Option<u32>,
}

impl BuddyAllocator {
    /// Counts the splits and the merges so far.
    pub(crate) fn splits_and_merges(&self) -> (u64, u64) {
        // Relaxed: counters.
        (self.tree.splits.load(Ordering::Relaxed), self.tree.merges.load(Ordering::Relaxed))
    }

    /// Counts the smallest blocks that are claimed.
    pub(crate) fn live_min_blocks(&self) -> u64 {
        let levels = &self.tree.levels;
        levels.iter().map(|node| min_blocks(node.level, self.claimed_in(node))).sum()
    }

    /// Counts the smallest blocks that are claimed in the range of a block of `order`, as part of
    /// blocks that are smaller than the range.
    pub(crate) fn live_min_blocks_in(&self, first: u32, order: u32) -> u64 {
        let (node, bit) = self.tree.levels.locate(first, order);
        let mask = self.tree.levels.order(order).mask_at(bit);
        let own = min_blocks(node.level, self.claimed_in(node) & mask);
        let below = (0..node.level).flat_map(|level| {
            // Words of lower levels lie in the range as a whole.
            let word = NodeId { level, index: 0 }.order();
            (first >> word..(first >> word) + (1 << (order - word)))
                .map(move |index| NodeId { level, index })
        });
        own + below.map(|node| min_blocks(node.level, self.claimed_in(node))).sum::<u64>()
    }

    /// Reads which bits of a word belong to blocks that are claimed in it.
    fn claimed_in(&self, node: NodeId) -> u32 {
        self.tree.load(node).claimed(node.level) & !self.tree.levels.pinned(node.level)
    }

    /// Hands each claimed block to `each`, with the number of its smallest blocks.
    ///
    /// `order_at` returns the order of the block that starts at a smallest block.
    pub(crate) fn for_each_claimed(
        &self,
        order_at: impl Fn(u32) -> u32,
        mut each: impl FnMut(u32, u64),
    ) {
        for node in self.tree.levels.iter() {
            self.for_each_claimed_in(node, &order_at, &mut each);
        }
    }

    fn for_each_claimed_in(
        &self,
        node: NodeId,
        order_at: &impl Fn(u32) -> u32,
        each: &mut impl FnMut(u32, u64),
    ) {
        let mut claimed = self.claimed_in(node);
        while claimed != 0 {
            let bit = claimed.trailing_zeros();
            let first = first_min_block(node, bit);
            // While blocks come and go the order may be another's: keep to this word, and to what
            // is claimed.
            let span = order_at(first).saturating_sub(4 * node.level).min(SPAN_MAX);
            let run = claimed & (run_mask(span) << bit);
            claimed &= !run;
            each(first, min_blocks(node.level, run));
        }
    }

    /// Finds the claimed block that holds `min_block`. Returns its first smallest block.
    pub(crate) fn block_around(
        &self,
        min_block: u32,
        order_at: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let mut around = None;
        for level in 0..=self.tree.levels.top() {
            let index = min_block >> NodeId { level, index: 0 }.order();
            self.for_each_claimed_in(NodeId { level, index }, &order_at, &mut |first, length| {
                if u64::from(min_block.wrapping_sub(first)) < length {
                    around = Some(first);
                }
            });
        }
        around
    }

    /// Returns the order of the largest block that a claim could get, or `None` if everything is
    /// claimed.
    pub(crate) fn largest_free_order(&self) -> Option<u32> {
        self.subtree(self.tree.levels.root()).largest
    }

    /// Counts the blocks of `order` that could be claimed one after the other.
    pub(crate) fn free_runs(&self, order: u32) -> u64 {
        if order > self.max_order() {
            return 0;
        }
        self.free_runs_in(self.tree.levels.root(), order)
    }

    fn free_runs_in(&self, node: NodeId, order: u32) -> u64 {
        let word = self.tree.load(node);
        if word.is_inactive() {
            return 1 << (node.order() - order);
        }
        let level = self.tree.levels.level_of(order);
        if node.level == level {
            let occupied = self.occupied_but_for_empties(node, word);
            return u64::from(count_runs(occupied, span_of(order, level)));
        }
        self.children(node)
            .map(|child| match word.child(child) {
                Child::Free => 1 << (node.child(child).order() - order),
                Child::Split | Child::Merging => self.free_runs_in(node.child(child), order),
                Child::Claimed => 0,
            })
            .sum()
    }

    /// Returns the children of a node that are not pinned.
    fn children(&self, node: NodeId) -> impl Iterator<Item = u32> {
        let pinned = self.tree.levels.pinned(node.level);
        (0..CHILDREN as u32).filter(move |child| pinned & (0b11 << (2 * child)) == 0)
    }

    fn subtree(&self, node: NodeId) -> SubtreeStats {
        let word = self.tree.load(node);
        if word.is_inactive() {
            return SubtreeStats { is_empty: true, largest: Some(node.order()) };
        }
        let split = if node.level == 0 { 0 } else { word.split_children() };
        let largest_below =
            set_bits(split).filter_map(|child| self.subtree(node.child(child)).largest).max();
        let occupied = self.occupied_but_for_empties(node, word);
        let own = longest_span(occupied).map(|span| 4 * node.level + span);
        SubtreeStats {
            is_empty: occupied & !self.tree.levels.pinned(node.level) == 0,
            largest: own.max(largest_below),
        }
    }

    /// Returns the occupied bits of a word, where children that are split and empty count as free.
    fn occupied_but_for_empties(&self, node: NodeId, word: TreeWord) -> u32 {
        let occupied = self.tree.occupied(node, word);
        if node.level == 0 {
            return occupied;
        }
        set_bits(word.split_children())
            .filter(|&child| self.subtree(node.child(child)).is_empty)
            .fold(occupied, |occupied, child| occupied & !(0b11 << (2 * child)))
    }

    /// Checks the invariants of `split_merge`, and that `live` smallest blocks are claimed. For
    /// moments at which nobody claims or frees.
    #[cfg(test)]
    pub(super) fn debug_check(&self, live: u64) {
        assert_eq!(self.live_min_blocks(), live, "smallest blocks claimed");
        let root = self.tree.load(self.tree.levels.root());
        assert!(!root.is_inactive(), "the root has no parent to belong to");
        for node in self.tree.levels.iter() {
            let word = self.tree.load(node);
            let pinned = self.tree.levels.pinned(node.level);
            assert!(!word.is_inactive() || word.state() == 0, "{node:?}: inactive, with claims");
            assert_eq!(word.state() & pinned, 0, "{node:?}: beyond the end");
            if node.level == 0 {
                continue;
            }
            for child in self.children(node) {
                let below = self.tree.load(node.child(child));
                match word.child(child) {
                    Child::Free | Child::Claimed => {
                        assert!(
                            below.is_inactive(),
                            "{node:?} owns child {child}, which is active"
                        );
                    }
                    Child::Split => {}
                    Child::Merging => panic!("{node:?} never finished with child {child}"),
                }
            }
        }
    }
}

/// Returns the number of smallest blocks that the bits of a word of `level` stand for.
fn min_blocks(level: u32, bits: u32) -> u64 {
    u64::from(bits.count_ones()) << (4 * level)
}
