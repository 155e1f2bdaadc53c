//! Where a block lies in the tree of words: arithmetic only.
//!
//! A word of level `l` covers `32 << 4 l` units, one bit of it `1 << 4 l`; it has 16 words of
//! level `l - 1` below it. The one word of the top level covers everything; its bits beyond the
//! end of the region are *pinned*: neither free nor claimed.

use super::hints::field;
use super::runs::{SPAN_MAX, run_mask};

/// Levels that the largest map has.
pub(super) const LEVELS_MAX: usize = 7;
/// The largest order that a map can have: the header table of one more would not fit in 4 GiB.
pub(super) const ORDER_MAX: u32 = 27;
/// Words below one node, and words in one line of the books.
pub(super) const CHILDREN: usize = 16;

/// One word: its level and its number within the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) level: u32,
    pub(super) index: u32,
}

impl At {
    #[inline]
    pub(super) fn parent(self) -> At {
        At { level: self.level + 1, index: self.index / CHILDREN as u32 }
    }

    pub(super) fn child(self, child: u32) -> At {
        At { level: self.level - 1, index: self.index * CHILDREN as u32 + child }
    }

    /// Which child of its parent this word is.
    #[inline]
    pub(super) fn child_number(self) -> u32 {
        self.index % CHILDREN as u32
    }

    /// The order of a block that covers this whole word.
    #[inline]
    pub(super) fn order(self) -> u32 {
        4 * self.level + 5
    }
}

/// What the arithmetic of an order comes to, worked out once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Order {
    pub(super) level: u32,
    /// The length of a block as a span of bits.
    pub(super) span: u32,
    /// That many bits.
    mask: u32,
    /// Bits beyond the end of the region, if the level is the top.
    pub(super) pinned: u32,
    /// Where the level's words begin.
    offset: u32,
    /// Where the hints begin that tell of the level's words.
    hints_offset: u32,
    /// Rows have no hints of their own; the node above has.
    hint_shift: u32,
    /// Whether there are hints that tell of the level's words: not of the top.
    pub(super) has_hint: bool,
    /// What the hint promises for a word that is free as a whole.
    pub(super) field_whole: u32,
}

impl Order {
    #[inline]
    pub(super) fn at(&self, index: u32) -> At {
        At { level: self.level, index }
    }

    /// Position in the array of the level's word number `index`.
    #[inline]
    pub(super) fn position(&self, index: u32) -> usize {
        self.offset as usize + index as usize
    }

    /// Where the hint is that tells of the level's word number `index`: position in the array of
    /// hints, and which field.
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

#[derive(Debug)]
pub(super) struct Levels {
    orders: [Order; ORDER_MAX as usize + 1],
    max_order: u32,
    top: u32,
    pinned: u32,
    /// Where each level's words begin in the one array of words; whole lines each.
    offsets: [u32; LEVELS_MAX],
    words_total: usize,
}

impl Levels {
    pub(super) fn new(max_order: u32) -> Levels {
        assert!(max_order <= ORDER_MAX, "a map of 2^{max_order} units is more than 2^{ORDER_MAX}");
        let top = max_order.saturating_sub(2) / 4;
        let bits_used = (1u64 << max_order) >> (4 * top);
        let mut levels = Levels {
            orders: [Order::default(); ORDER_MAX as usize + 1],
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
            levels.orders[order as usize] = Order {
                level,
                span,
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

    pub(super) fn root(&self) -> At {
        At { level: self.top, index: 0 }
    }

    /// Length of the array that holds the words of all levels.
    pub(super) fn words_total(&self) -> usize {
        self.words_total
    }

    pub(super) fn words_at(&self, level: u32) -> usize {
        ((1usize << self.max_order) >> (4 * level + 5)).max(1)
    }

    /// Where the nodes begin that have hints.
    pub(super) fn hints_begin(&self) -> usize {
        if self.top < 2 { self.words_total } else { self.offsets[2] as usize }
    }

    #[inline]
    pub(super) fn position(&self, at: At) -> usize {
        self.offsets[at.level as usize] as usize + at.index as usize
    }

    /// The bits of a word that lie beyond the end of the region.
    #[inline]
    pub(super) fn pinned(&self, level: u32) -> u32 {
        if level == self.top { self.pinned } else { 0 }
    }

    /// The level in whose words blocks of `order` are claimed.
    #[inline]
    pub(super) fn level_of(&self, order: u32) -> u32 {
        self.order(order).level
    }

    /// All about an order, which is at most the largest.
    #[inline]
    pub(super) fn order(&self, order: u32) -> &Order {
        &self.orders[order as usize]
    }

    /// The word in which a block is claimed, and its first bit there.
    #[inline]
    pub(super) fn place(&self, first: u32, order: u32) -> (At, u32) {
        let order = self.order(order);
        let from_bit = first >> (4 * order.level);
        (order.at(from_bit / 32), from_bit % 32)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = At> + '_ {
        (0..=self.top).flat_map(|level| {
            (0..self.words_at(level) as u32).map(move |index| At { level, index })
        })
    }
}

/// The length, as a span of bits, that a block of `order` has in a word of `level`.
#[inline]
pub(super) fn span_of(order: u32, level: u32) -> u32 {
    order - 4 * level
}

/// The first unit of the block that starts at `bit` of the word `at`.
#[inline]
pub(super) fn first_unit(at: At, bit: u32) -> u32 {
    (at.index << at.order()) | (bit << (4 * at.level))
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
                    let (at, bit) = levels.place(first, order);
                    let mask = levels.order(order).mask_at(bit);
                    assert!((at.index as usize) < levels.words_at(at.level));
                    assert_eq!(mask & levels.pinned(at.level), 0, "order {order} of {max_order}");
                    assert_eq!(first_unit(at, mask.trailing_zeros()), first);
                    assert_eq!(mask.count_ones() << (4 * at.level), 1 << order);
                }
            }
        }
    }
}
