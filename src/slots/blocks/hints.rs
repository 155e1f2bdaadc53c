//! Where a search should look: for each node, four bits per child that estimate the largest
//! block free in that child.
//!
//! Hints only steer. They are lowered by searches that found less than promised and raised by
//! frees, both Relaxed; a hint that is wrong costs time, never an answer, because a claim is
//! refused only after the words themselves have been read.

use super::levels::{At, CHILDREN, Levels};
use super::lines::Lines;
use crate::sync::{AtomicU64, Ordering};

/// The low bit of each of 16 four-bit fields.
const LOW: u64 = 0x1111_1111_1111_1111;
const FIELD_MAX: u32 = 15;

/// High levels have more orders than four bits can tell apart: there the small ones share 1.
#[inline]
fn skipped(level: u32) -> u32 {
    (4 * level + 6).saturating_sub(FIELD_MAX)
}

/// The field for a word of `level` whose largest free block has `order`.
#[inline]
pub(super) fn field(level: u32, order: u32) -> u32 {
    (order + 1).saturating_sub(skipped(level)).max(1)
}

/// The field of a word of `level` that is free as a whole.
#[inline]
pub(super) fn field_whole(level: u32) -> u32 {
    field(level, 4 * level + 5)
}

/// The largest order that `field` may stand for.
pub(super) fn order_of(level: u32, field: u32) -> Option<u32> {
    (field != 0).then(|| field - 1 + skipped(level))
}

/// The hints of one node's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields(u64);

impl Fields {
    #[inline]
    pub(super) fn get(self, child: u32) -> u32 {
        (self.0 >> (4 * child)) as u32 & FIELD_MAX
    }

    fn with(self, child: u32, field: u32) -> Fields {
        let shift = 4 * child;
        Fields((self.0 & !(u64::from(FIELD_MAX) << shift)) | (u64::from(field) << shift))
    }

    /// Bit `c` for each child whose field is at least `field`.
    pub(super) fn at_least(self, field: u32) -> u32 {
        (0..CHILDREN as u32).fold(0, |mask, child| mask | (u32::from(self.get(child) >= field) << child))
    }

    /// The child among `of` with the smallest field.
    pub(super) fn tightest(self, of: u32) -> Option<u32> {
        (0..CHILDREN as u32).filter(|child| of & (1 << child) != 0).min_by_key(|&child| self.get(child))
    }

    pub(super) fn largest(self, of: u32) -> u32 {
        (0..CHILDREN as u32)
            .filter(|child| of & (1 << child) != 0)
            .map(|child| self.get(child))
            .max()
            .unwrap_or(0)
    }
}

/// One word of fields per node.
pub(super) struct Hints {
    fields: Lines,
    rows_total: usize,
}

impl Hints {
    pub(super) fn new(levels: &Levels) -> Option<Hints> {
        let rows_total = levels.rows_total();
        let nodes = levels.words_total() - rows_total;
        let level_of = |position: usize| {
            let after = |&level: &u32| levels.position(At { level, index: 0 }) <= position + rows_total;
            (1..=levels.top()).rev().find(after).unwrap_or(1)
        };
        let whole = |position| LOW * u64::from(field_whole(level_of(position) - 1));
        Some(Hints { fields: Lines::new(nodes, whole)?, rows_total })
    }

    #[inline]
    fn word(&self, levels: &Levels, node: At) -> &AtomicU64 {
        self.fields.get(levels.position(node) - self.rows_total)
    }

    #[inline]
    pub(super) fn load(&self, levels: &Levels, node: At) -> Fields {
        Fields(self.word(levels, node).load(Ordering::Relaxed))
    }

    /// Replaces one child's field unless anything changed since `seen`; tells whether it did.
    pub(super) fn lower(&self, levels: &Levels, node: At, seen: Fields, child: u32, to: u32) -> bool {
        to < seen.get(child)
            && self
                .word(levels, node)
                .compare_exchange(seen.0, seen.with(child, to).0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Makes the fields on the way from `at` to the root promise at least `order`.
    pub(super) fn raise(&self, levels: &Levels, mut at: At, order: u32) {
        while at.level < levels.top() {
            let (node, child) = (at.parent(), at.child_number());
            let enough = field(at.level, order);
            let mut seen = self.load(levels, node);
            while seen.get(child) < enough {
                let new = seen.with(child, enough);
                match self.word(levels, node).compare_exchange_weak(
                    seen.0,
                    new.0,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => seen = Fields(now),
                }
            }
            at = node;
        }
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_field_never_promises_less_than_it_was_given() {
        for level in 0..6 {
            let mut last = 0;
            for order in 0..=4 * level + 5 {
                let field = field(level, order);
                assert!((1..=15).contains(&field) && field >= last);
                assert!(order_of(level, field) >= Some(order));
                last = field;
            }
            assert_eq!(field_whole(level), last);
        }
    }

    #[test]
    fn raising_reaches_the_root_and_lowering_gives_way_to_it() {
        let levels = Levels::new(12);
        let hints = Hints::new(&levels).unwrap();
        let row = At { level: 0, index: 37 };
        let node = row.parent();
        let seen = hints.load(&levels, node);
        assert_eq!(seen.get(row.child_number()), field_whole(0));
        assert!(hints.lower(&levels, node, seen, row.child_number(), 0));
        hints.raise(&levels, row, 3);
        assert!(!hints.lower(&levels, node, seen, row.child_number(), 0));
        let now = hints.load(&levels, node);
        assert_eq!(now.get(row.child_number()), field(0, 3));
        assert_eq!(now.tightest(0xFFFF), Some(row.child_number()));
        assert_eq!(now.at_least(field_whole(0)), 0xFFFF & !(1 << row.child_number()));
    }
}
