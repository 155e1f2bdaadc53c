//! Where a search should look: for each node, four bits per child that estimate the largest
//! block free in that child.
//!
//! Hints only steer. They are lowered by searches that found less than promised and raised by
//! frees, both Relaxed; a hint that is wrong costs time, never an answer, because a claim is
//! refused only after the words themselves have been read.

use super::levels::{At, Levels, Order};
use super::lines::Lines;
use crate::sync::{AtomicU64, Ordering};

/// The low bit of each of 16 four-bit fields.
const LOW: u64 = 0x1111_1111_1111_1111;
/// The low bit of each of 8 bytes.
const BYTES: u64 = 0x0101_0101_0101_0101;
const FIELD_MAX: u32 = 15;

/// Moves bit `i` of eight to bit `2 i`.
#[inline]
fn spread(mut bits: u32) -> u32 {
    bits = (bits | (bits << 4)) & 0x0F0F;
    bits = (bits | (bits << 2)) & 0x3333;
    (bits | (bits << 1)) & 0x5555
}

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
    #[inline]
    pub(super) fn at_least(self, field: u32) -> u32 {
        // Four-bit fields in bytes, so that adding `128 - field` carries into bit 7 from `field`
        // on.
        let compare = |fields: u64| {
            let carried = (fields & (BYTES * 0xF)) + BYTES * u64::from(128 - field);
            // Gathers bit 7 of each byte: byte `i` to bit `i`.
            ((carried >> 7) & BYTES).wrapping_mul(0x0102_0408_1020_4080) >> 56
        };
        let (even, odd) = (compare(self.0), compare(self.0 >> 4));
        spread(even as u32) | (spread(odd as u32) << 1)
    }

    /// The child among `of` with the smallest field, when all of them have at least `field`.
    #[inline]
    pub(super) fn tightest(self, of: u32, field: u32) -> Option<u32> {
        if of == 0 {
            return None;
        }
        let mut more = of;
        let mut field = field;
        while more == of && field < FIELD_MAX {
            field += 1;
            more = of & self.at_least(field);
        }
        let tight = if more == of { of } else { of & !more };
        Some(tight.trailing_zeros())
    }

    pub(super) fn largest(self, of: u32) -> u32 {
        (1..=FIELD_MAX).rev().find(|&field| self.at_least(field) & of != 0).unwrap_or(0)
    }
}

/// One word of fields per node from level 2 on. Rows need no hints: the 16 below one node share two
/// cache lines, and looking at them is as cheap.
pub(super) struct Hints {
    fields: Lines,
    /// Where the words of level 2 begin.
    begin: usize,
}

impl Hints {
    pub(super) fn new(levels: &Levels) -> Option<Hints> {
        let begin = levels.hints_begin();
        let level_of = |position: usize| {
            let starts = |&level: &u32| levels.position(At { level, index: 0 }) <= position + begin;
            (2..=levels.top()).rev().find(starts).unwrap_or(2)
        };
        let whole = |position| LOW * u64::from(field_whole(level_of(position) - 1));
        Some(Hints { fields: Lines::new(levels.words_total() - begin, whole)?, begin })
    }

    #[inline]
    fn word(&self, levels: &Levels, node: At) -> &AtomicU64 {
        self.fields.get(levels.position(node) - self.begin)
    }

    /// The fields of a node; for a node above rows, which has none, they promise everything.
    #[inline]
    pub(super) fn load(&self, levels: &Levels, node: At) -> Fields {
        if node.level < 2 {
            return Fields(u64::MAX);
        }
        Fields(self.word(levels, node).load(Ordering::Relaxed))
    }

    /// The field that tells of the word number `index` of the level of `order`, which has one.
    #[inline]
    pub(super) fn of(&self, order: &Order, index: u32) -> u32 {
        let (position, child) = order.hint_position(index);
        Fields(self.fields.get(position).load(Ordering::Relaxed)).get(child)
    }

    /// Replaces one child's field unless anything changed since `seen`; tells whether it did.
    pub(super) fn lower(
        &self,
        levels: &Levels,
        node: At,
        seen: Fields,
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

    /// Makes the fields on the way from `at` to the root promise at least `order`.
    pub(super) fn raise(&self, levels: &Levels, mut at: At, order: u32) {
        if at.level == 0 && levels.top() > 0 {
            at = at.parent();
        }
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
    fn comparing_all_fields_at_once_is_comparing_each() {
        let mut random = 1u64;
        for _ in 0..1000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let fields = Fields(random);
            for field in 0..=FIELD_MAX {
                let each =
                    (0..16).fold(0, |mask, c| mask | (u32::from(fields.get(c) >= field) << c));
                assert_eq!(fields.at_least(field), each);
            }
            let of = (random >> 7) as u32 & 0xFFFF;
            let smallest = (0..16).filter(|c| of & (1 << c) != 0).min_by_key(|&c| fields.get(c));
            assert_eq!(fields.tightest(of, 0), smallest);
        }
    }

    #[test]
    fn raising_reaches_the_root_and_lowering_gives_way_to_it() {
        let levels = Levels::new(15);
        let hints = Hints::new(&levels).unwrap();
        let row = At { level: 0, index: 37 * 16 + 5 };
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
