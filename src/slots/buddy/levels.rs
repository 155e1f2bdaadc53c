//! The positions of blocks in the tree of words: arithmetic only.
//!
//! A word of level `l` covers `32 << 4 l` smallest blocks, and each of its bits `1 << 4 l`. It has
//! 16 words of level `l - 1` below it. The one word of the top level covers everything; its bits
//! beyond the end of the region are *pinned*: neither free nor claimed.

use super::runs::{Runs, SPAN_MAX, run_mask};
use super::word::{CHILDREN, field};

/// The number of levels in the largest tree.
pub(super) const LEVELS_MAX: usize = 7;
/// The largest order of a tree: the headers of twice as many blocks would not fit in 2 GiB (see
/// `lease::core`).
pub(super) const ORDER_MAX: u32 = 26;

/// The length of the table of orders.
const ORDERS: usize = (ORDER_MAX as usize + 1).next_power_of_two();

/// The identity of a word: its level, and its number within the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId {
    pub(super) level: u32,
    pub(super) index: u32,
}

impl NodeId {
    #[inline]
    pub(super) fn parent(self) -> NodeId {
        NodeId { level: self.level + 1, index: self.index / CHILDREN as u32 }
    }

    pub(super) fn child(self, child: u32) -> NodeId {
        NodeId { level: self.level - 1, index: self.index * CHILDREN as u32 + child }
    }

    /// Returns the number of this word among its parent's children.
    #[inline]
    pub(super) fn child_number(self) -> u32 {
        self.index % CHILDREN as u32
    }

    /// Returns the order of a block that covers this whole word.
    #[inline]
    pub(super) fn order(self) -> u32 {
        4 * self.level + 5
    }
}

/// The numbers that belong to an order, computed once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OrderInfo {
    pub(super) level: u32,
    /// The runs of free bits that a block needs.
    pub(super) runs: Runs,
    /// A mask of as many bits as a block has.
    mask: u32,
    /// The bits beyond the end of the region, if the level is the top.
    pub(super) pinned: u32,
    /// The position of the level's first word.
    offset: u32,
    /// The position of the first hint for the level's words.
    hints_offset: u32,
    /// The shift from a word's number to that of the word which has a hint: rows have none, the
    /// node above has.
    hint_shift: u32,
    /// `true` if there are hints for the level's words: not for the top.
    pub(super) has_hint: bool,
    /// The hint for a word that is free as a whole.
    pub(super) field_whole: u32,
}

impl OrderInfo {
    #[inline]
    pub(super) fn node(&self, index: u32) -> NodeId {
        NodeId { level: self.level, index }
    }

    /// Returns the position of the level's word number `index` in the array of words.
    #[inline]
    pub(super) fn position(&self, index: u32) -> usize {
        self.offset as usize + index as usize
    }

    /// Returns the position of the hint for the level's word number `index`: in the array of hints,
    /// and the number of its field.
    #[inline]
    pub(super) fn hint_position(&self, index: u32) -> (usize, u32) {
        let word = index >> self.hint_shift;
        ((self.hints_offset + word / CHILDREN as u32) as usize, word % CHILDREN as u32)
    }

    #[inline]
    pub(super) fn mask_at(&self, bit: u32) -> u32 {
        self.mask << bit
    }
}

/// The shape of a tree.
#[derive(Debug)]
pub(super) struct Levels {
    /// As many as an index of five bits reaches: it needs no check.
    orders: [OrderInfo; ORDERS],
    max_order: u32,
    top: u32,
    pinned: u32,
    /// The position of each level's first word in the one array of words; whole groups each.
    offsets: [u32; LEVELS_MAX],
    words_total: usize,
}

impl Levels {
    pub(super) fn new(max_order: u32) -> Levels {
        assert!(max_order <= ORDER_MAX, "2^{max_order} blocks are more than 2^{ORDER_MAX}");
        let top = max_order.saturating_sub(2) / 4;
        let bits_used = (1u64 << max_order) >> (4 * top);
        let mut levels = Levels {
            orders: [OrderInfo::default(); ORDERS],
            max_order,
            top,
            pinned: !(((1u64 << bits_used) - 1) as u32),
            offsets: [0; LEVELS_MAX],
            words_total: 0,
        };
        for level in 0..=top {
            levels.offsets[level as usize] = levels.words_total as u32;
            levels.words_total += levels.words_at(level).next_multiple_of(CHILDREN);
        }
        for order in 0..=max_order {
            let level = (order.saturating_sub(1) / 4).min(top);
            let span = span_of(order, level);
            let hinted = level.max(1);
            levels.orders[order as usize] = OrderInfo {
                level,
                runs: Runs::of(span),
                mask: run_mask(span),
                pinned: levels.pinned(level),
                offset: levels.offsets[level as usize],
                hints_offset: if hinted < top {
                    levels.offsets[hinted as usize + 1] - levels.offsets[2]
                } else {
                    0
                },
                hint_shift: 4 * (hinted - level),
                has_hint: hinted < top,
                field_whole: field(hinted, 4 * level + SPAN_MAX),
            };
        }
        levels
    }

    #[inline]
    pub(super) fn max_order(&self) -> u32 {
        self.max_order
    }

    #[inline]
    pub(super) fn top(&self) -> u32 {
        self.top
    }

    pub(super) fn root(&self) -> NodeId {
        NodeId { level: self.top, index: 0 }
    }

    /// Returns the length of the array that holds the words of all levels.
    pub(super) fn words_total(&self) -> usize {
        self.words_total
    }

    pub(super) fn words_at(&self, level: u32) -> usize {
        ((1usize << self.max_order) >> (4 * level + 5)).max(1)
    }

    /// Returns the position of the first node that has hints.
    pub(super) fn hints_begin(&self) -> usize {
        if self.top < 2 { self.words_total } else { self.offsets[2] as usize }
    }

    #[inline]
    pub(super) fn position(&self, node: NodeId) -> usize {
        self.offsets[node.level as usize] as usize + node.index as usize
    }

    /// Returns the bits of a word of `level` that lie beyond the end of the region.
    #[inline]
    pub(super) fn pinned(&self, level: u32) -> u32 {
        if level == self.top { self.pinned } else { 0 }
    }

    /// Returns the level in whose words blocks of `order` are claimed.
    #[inline]
    pub(super) fn level_of(&self, order: u32) -> u32 {
        self.order(order).level
    }

    /// Returns the numbers of an order, which is at most the largest.
    #[inline]
    pub(super) fn order(&self, order: u32) -> &OrderInfo {
        &self.orders[order as usize % ORDERS]
    }

    /// Returns the word in which a block is claimed, and the block's first bit there.
    #[inline]
    pub(super) fn locate(&self, first: u32, order: u32) -> (NodeId, u32) {
        let order = self.order(order);
        let from_bit = first >> (4 * order.level);
        (order.node(from_bit / 32), from_bit % 32)
    }

    /// Returns all words, level by level from the rows on.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..=self.top).flat_map(|level| {
            (0..self.words_at(level) as u32).map(move |index| NodeId { level, index })
        })
    }
}

/// Returns the length, as a span of bits, of a block of `order` in a word of `level`.
#[inline]
pub(super) fn span_of(order: u32, level: u32) -> u32 {
    order - 4 * level
}

/// Returns the first smallest block of the run that starts at `bit` of a word.
#[inline]
pub(super) fn first_min_block(node: NodeId, bit: u32) -> u32 {
    (node.index << node.order()) | (bit << (4 * node.level))
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_one_word_and_the_way_back_is_the_same() {
        for max_order in 0..=26 {
            let levels = Levels::new(max_order);
            assert_eq!(levels.words_at(levels.top()), 1);
            for order in 0..=max_order {
                let blocks = 1u32 << (max_order - order);
                for block in [0, 1, blocks / 2, blocks - 1] {
                    if block >= blocks {
                        continue;
                    }
                    let first = block << order;
                    let (node, bit) = levels.locate(first, order);
                    let mask = levels.order(order).mask_at(bit);
                    assert!((node.index as usize) < levels.words_at(node.level));
                    assert_eq!(mask & levels.pinned(node.level), 0, "order {order} of {max_order}");
                    assert_eq!(first_min_block(node, mask.trailing_zeros()), first);
                    assert_eq!(mask.count_ones() << (4 * node.level), 1 << order);
                }
            }
        }
    }
}
