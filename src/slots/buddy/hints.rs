//! Hints for the search: for each node, the largest block that may be free in each child.
//!
//! Hints only steer. Searches lower them when they found less than promised, and frees raise them,
//! both Relaxed. A wrong hint costs time, never an answer: a claim is refused only after the words
//! themselves were read.

use super::levels::{Levels, NodeId, OrderInfo};
use super::word::{HintWord, PaddedWords, field, field_whole};
use crate::sync::{AtomicU64, Ordering};

/// The hints of every node from level 2 on.
///
/// Rows need no hints: the 16 below one node share two cache lines, and reading them is as cheap.
pub(super) struct Hints {
    words: PaddedWords,
    /// The position of the first word of level 2.
    begin: usize,
}

impl Hints {
    /// Makes hints that promise everything. Returns `None` if there is no memory for them.
    pub(super) fn new(levels: &Levels) -> Option<Hints> {
        let begin = levels.hints_begin();
        let level_of = |position: usize| {
            let starts =
                |&level: &u32| levels.position(NodeId { level, index: 0 }) <= position + begin;
            (2..=levels.top()).rev().find(starts).unwrap_or(2)
        };
        let whole = |position| HintWord::all(field_whole(level_of(position) - 1)).0;
        Some(Hints { words: PaddedWords::new(levels.words_total() - begin, whole)?, begin })
    }

    #[inline]
    fn word(&self, levels: &Levels, node: NodeId) -> &AtomicU64 {
        self.words.get(levels.position(node) - self.begin)
    }

    /// Reads the hints of a node. A node above rows has none: they promise everything.
    #[inline]
    pub(super) fn load(&self, levels: &Levels, node: NodeId) -> HintWord {
        if node.level < 2 {
            return HintWord(u64::MAX);
        }
        HintWord(self.word(levels, node).load(Ordering::Relaxed))
    }

    /// Reads the field for word number `index` of the level of `order`, which has one.
    #[inline]
    pub(super) fn field_of(&self, order: &OrderInfo, index: u32) -> u32 {
        let (position, child) = order.hint_position(index);
        HintWord(self.words.get(position).load(Ordering::Relaxed)).get(child)
    }

    /// Lowers the field of one child, unless a hint of the node changed since `seen`.
    ///
    /// Returns `true` if the field was lowered.
    pub(super) fn lower(
        &self,
        levels: &Levels,
        node: NodeId,
        seen: HintWord,
        child: u32,
        to: u32,
    ) -> bool {
        to < seen.get(child)
            && self
                .word(levels, node)
                .compare_exchange(
                    seen.0,
                    seen.with(child, to).0,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Raises the fields on the way from `node` to the root: they promise at least `order`.
    pub(super) fn raise(&self, levels: &Levels, mut node: NodeId, order: u32) {
        if node.level == 0 && levels.top() > 0 {
            node = node.parent();
        }
        while node.level < levels.top() {
            let (parent, child) = (node.parent(), node.child_number());
            let enough = field(node.level, order);
            let mut seen = self.load(levels, parent);
            while seen.get(child) < enough {
                let new = seen.with(child, enough);
                match self.word(levels, parent).compare_exchange_weak(
                    seen.0,
                    new.0,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => seen = HintWord(now),
                }
            }
            node = parent;
        }
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_root_and_lowering_gives_way_to_it() {
        let levels = Levels::new(15);
        let hints = Hints::new(&levels).unwrap();
        let row = NodeId { level: 0, index: 37 * 16 + 5 };
        let below = row.parent();
        let node = below.parent();
        let seen = hints.load(&levels, node);
        assert_eq!(seen.get(below.child_number()), field_whole(1));
        assert!(hints.lower(&levels, node, seen, below.child_number(), 0));
        hints.raise(&levels, row, 3);
        assert!(!hints.lower(&levels, node, seen, below.child_number(), 0));
        let now = hints.load(&levels, node);
        assert_eq!(now.get(below.child_number()), field(1, 3));
        assert_eq!(now.tightest(0xFFFF, 0), Some(below.child_number()));
        assert_eq!(now.at_least(field_whole(1)), 0xFFFF & !(1 << below.child_number()));
    }
}
