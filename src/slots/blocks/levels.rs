//! Where a block lies in the tree of words: arithmetic only.
//!
//! A word of level `l` covers `32 << 4 l` units, one bit of it `1 << 4 l`; it has 16 words of
//! level `l - 1` below it. The one word of the top level covers everything; its bits beyond the
//! end of the region are *pinned*: neither free nor claimed.

use super::runs::run_mask;

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

/// The bits of one block: the word they are in, and which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) at: At,
    pub(super) mask: u32,
}

#[derive(Debug)]
pub(super) struct Levels {
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

    /// Length of the part of the array that holds rows; the nodes follow it.
    #[inline]
    pub(super) fn rows_total(&self) -> usize {
        if self.top == 0 { self.words_total } else { self.offsets[1] as usize }
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
        (order.saturating_sub(1) / 4).min(self.top)
    }

    #[inline]
    pub(super) fn place(&self, first: u32, order: u32) -> Place {
        let level = self.level_of(order);
        let at = At { level, index: first >> (4 * level + 5) };
        Place { at, mask: run_mask(span_of(order, level)) << ((first >> (4 * level)) % 32) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = At> + '_ {
        (0..=self.top)
            .flat_map(|level| (0..self.words_at(level) as u32).map(move |index| At { level, index }))
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
                    let Place { at, mask } = levels.place(first, order);
                    assert!((at.index as usize) < levels.words_at(at.level));
                    assert_eq!(mask & levels.pinned(at.level), 0, "order {order} of {max_order}");
                    assert_eq!(first_unit(at, mask.trailing_zeros()), first);
                    assert_eq!(mask.count_ones() << (4 * at.level), 1 << order);
                }
            }
        }
    }

    #[test]
    fn the_books_cost_less_than_three_tenths_of_a_byte_per_unit() {
        for max_order in [16, 18, 22, 26] {
            let levels = Levels::new(max_order);
            let nodes = levels.words_total() - levels.rows_total();
            let bytes = 8 * (levels.words_total() + nodes);
            assert!((bytes as f64) < 0.3 * f64::from(1u32 << max_order), "2^{max_order}: {bytes}");
        }
    }
}
