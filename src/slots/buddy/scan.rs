//! A scan: one pass over the tree for a free block.
//!
//! A scan by hints visits the parts of the tree that promise enough. An exhaustive scan reads every
//! word that could matter: only such a scan may be part of a refusal, see
//! [`BuddyAllocator::search`](super::BuddyAllocator::search).
//!
//! An exhaustive scan that found nothing and was not disturbed has seen no block that serves. It
//! also has missed none that was free from its beginning to its end: such a block can only pass
//! from a word to the one below or back, and the scan takes note of either.

use super::levels::{NodeId, first_min_block, span_of};
use super::runs::{find_run, longest_span, run_mask, set_bits};
use super::split_merge::Activation;
use super::tree::WordTree;
use super::word::{CHILDREN, TreeWord, field, field_whole};

/// The number of children that a scan tries to split in one word before it goes on.
const SPLITS_MAX: usize = 2 * CHILDREN;

/// One pass over the tree for a block of one order.
pub(super) struct Scan<'a> {
    tree: &'a WordTree,
    /// The level in whose words the order is claimed.
    level: u32,
    order: u32,
    /// Reads every word that could matter, whatever the hints say.
    exhaustive: bool,
    /// A fingerprint of the words that were read and their versions, by a mixing multiplication.
    /// That two different passes agree by accident is as unlikely as anything a computer does.
    fingerprint: u64,
    /// A block was free and was lost to another claim: the pass proves nothing.
    raced: bool,
}

impl Scan<'_> {
    pub(super) fn new(tree: &WordTree, level: u32, order: u32, exhaustive: bool) -> Scan<'_> {
        Scan { tree, level, order, exhaustive, fingerprint: 0, raced: false }
    }

    /// Returns the fingerprint of all words that were read, or `None` if the scan missed a block
    /// that others claimed or moved meanwhile.
    pub(super) fn versions(&self) -> Option<u64> {
        (!self.raced).then_some(self.fingerprint)
    }

    fn observe(&mut self, node: NodeId, word: TreeWord) {
        let place = (u64::from(node.level) << 32) | u64::from(node.index);
        for value in [place, word.version()] {
            let mixed = (self.fingerprint ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.fingerprint = mixed ^ (mixed >> 29);
        }
    }

    /// Claims a block in `node` or below it. Returns its first smallest block.
    pub(super) fn visit(&mut self, node: NodeId) -> Option<u32> {
        if node.level == self.level {
            return self.visit_last(node);
        }
        let word = self.tree.load(node);
        self.observe(node, word);
        if word.is_inactive() {
            self.raced = true;
            return None;
        }
        self.visit_split_children(node, word)
            .or_else(|| self.visit_by_splitting(node, word.split_children()))
    }

    /// Visits the children that are split, the fullest that may serve first.
    fn visit_split_children(&mut self, node: NodeId, word: TreeWord) -> Option<u32> {
        let mut rest = word.split_children();
        if self.exhaustive {
            return set_bits(rest).find_map(|child| self.visit_child(node, child));
        }
        if node.level == self.level + 1 {
            let found = self.visit_tightest(node, rest);
            // Rows have nothing below them that could be merged.
            if found.is_some() || self.level == 0 {
                return found;
            }
        }
        let hints = self.tree.hints.load(&self.tree.levels, node);
        let enough = field(node.level - 1, self.order);
        rest &= hints.at_least(enough);
        while let Some(child) = hints.tightest(rest, enough) {
            rest &= !(1 << child);
            let found = self.visit_child(node, child);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Reads the words below, which share two cache lines, and visits the one whose longest run is
    /// the shortest that serves.
    fn visit_tightest(&mut self, node: NodeId, mut rest: u32) -> Option<u32> {
        let span = span_of(self.order, self.level);
        loop {
            let longest = |child| {
                let below = node.child(child);
                let word = self.tree.load(below);
                // Inactive though the parent is split: free as a whole, for the claim that
                // activates it.
                let occupied = if word.is_inactive() { 0 } else { word.occupied(below.level) };
                longest_span(occupied)
                    .filter(|&longest| longest >= span)
                    .map(|longest| (longest, child))
            };
            let (_, child) = set_bits(rest).filter_map(longest).min()?;
            rest &= !(1 << child);
            let found = self.visit_child(node, child);
            if found.is_some() {
                return found;
            }
        }
    }

    /// Splits children that are free as a whole, until one serves. `visited` are those that were
    /// split before, and visited.
    fn visit_by_splitting(&mut self, node: NodeId, mut visited: u32) -> Option<u32> {
        for _ in 0..SPLITS_MAX {
            let word = self.tree.load(node);
            self.observe(node, word);
            if word.is_inactive() {
                self.raced = true;
                return None;
            }
            // A child is two bits.
            let Some(start) = find_run(self.tree.occupied(node, word), 1) else {
                // What another claim has split since then was free, and nobody looked there.
                self.raced |= word.split_children() & !visited != 0;
                return None;
            };
            let child = start / 2;
            if self.tree.split(node, word, child) {
                visited |= 1 << child;
                let found = self.visit_child(node, child);
                if found.is_some() {
                    return found;
                }
            }
            self.raced = true;
        }
        None
    }

    fn visit_child(&mut self, node: NodeId, child: u32) -> Option<u32> {
        let below = node.child(child);
        let claim =
            if below.level == self.level { run_mask(span_of(self.order, below.level)) } else { 0 };
        match self.tree.activate_child(node, child, claim) {
            Activation::Activated if claim != 0 => return Some(first_min_block(below, 0)),
            Activation::Activated | Activation::Active => {}
            Activation::OwnedByParent => {
                self.raced = true;
                return None;
            }
        }
        let hints = self.tree.hints.load(&self.tree.levels, node);
        let found = self.visit(below);
        if found.is_none() {
            self.tree.lower_hint(node, child, hints);
        }
        found
    }

    /// Visits a word in which blocks of this order are claimed.
    fn visit_last(&mut self, node: NodeId) -> Option<u32> {
        let word = self.tree.load(node);
        self.observe(node, word);
        if word.is_inactive() {
            self.raced = true;
            return None;
        }
        if find_run(self.tree.occupied(node, word), span_of(self.order, node.level)).is_some() {
            let found = self.tree.claim_in(node.index, self.tree.levels.order(self.order));
            if found.is_some() {
                return found;
            }
            self.raced = true;
        }
        if node.level == 0 { None } else { self.merge_run(node, word) }
    }

    /// Claims a run whose children are free, or split and empty, by merging the latter.
    fn merge_run(&mut self, node: NodeId, word: TreeWord) -> Option<u32> {
        let span = span_of(self.order, node.level);
        let blocked = word.claimed(node.level) | self.tree.levels.pinned(node.level);
        for start in (0..32).step_by(1 << span) {
            let mask = run_mask(span) << start;
            if blocked & mask != 0 || !self.seems_empty(node, word, mask) {
                continue;
            }
            let mut children = start / 2..(start + (1 << span)) / 2;
            if children.all(|child| self.tree.merge(node, child))
                && self.tree.claim_exactly(node, mask)
            {
                return Some(first_min_block(node, start));
            }
            self.raced = true;
        }
        None
    }

    /// Returns `true` if all split children of `node` under `mask` look empty.
    ///
    /// A look before a merge matters: two claims that merged what is in use would keep each other
    /// from a proof for ever.
    fn seems_empty(&mut self, node: NodeId, word: TreeWord, mask: u32) -> bool {
        let hints = self.tree.hints.load(&self.tree.levels, node);
        let whole = field_whole(node.level - 1);
        set_bits(word.split_children()).filter(|child| mask & (0b11 << (2 * child)) != 0).all(
            |child| {
                if !self.exhaustive && hints.get(child) < whole {
                    return false;
                }
                let is_empty = self.is_empty(node.child(child));
                if !is_empty {
                    self.tree.lower_hint(node, child, hints);
                }
                is_empty
            },
        )
    }

    fn is_empty(&mut self, node: NodeId) -> bool {
        let word = self.tree.load(node);
        self.observe(node, word);
        if node.level == 0 {
            return word.state() == 0;
        }
        word.claimed(node.level) == 0
            && set_bits(word.split_children()).all(|child| self.is_empty(node.child(child)))
    }
}
