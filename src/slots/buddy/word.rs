//! The words of the tree, packed: a [`TreeWord`] for each node, a [`HintWord`] for its children.
//!
//! ```text
//! bit 63 ............ 35   34       33      32        31 ........ 0
//!     version (29 bits)    WAITERS  CLOSED  INACTIVE  state
//! ```
//!
//! | part       | meaning and changes                                                            |
//! |------------|--------------------------------------------------------------------------------|
//! | state      | level 0, a *row*: one bit for each smallest block, set while it is claimed     |
//! |            | above: a [`Child`], two bits, for each of the 16 words below                   |
//! | `INACTIVE` | the word belongs to its parent; set by a merge, cleared by the first claim     |
//! | `CLOSED`   | the last handle is gone; never cleared                                         |
//! | `WAITERS`  | set while somebody waits: a free must visit the wait queue                     |
//! | version    | grows with every change that is not a claim                                    |
//!
//! A run of `Claimed` children is again a run of set bits, so the same arithmetic serves every
//! level. If a word has the same version in two reads, and the first found nothing free, then
//! nothing was free in between.

use crate::sync::AtomicU64;

/// The number of words below one node.
pub(super) const CHILDREN: usize = 16;

/// A flag: nothing may be claimed in the word, and its state is zero.
const INACTIVE: u64 = 1 << 32;
/// A flag: a free that leaves no claim in the word counts the word as drained.
const CLOSED: u64 = 1 << 33;
/// A flag: a free must release its claim to the wait queue.
const WAITERS: u64 = 1 << 34;
const VERSION_ONE: u64 = 1 << 35;

/// The low bit of each child's two bits.
const CHILD_LOW: u32 = 0x5555_5555;

/// The state of one of the 16 words below a node, as the node knows it.
///
/// | from    | to      | by                                                                    |
/// |---------|---------|-----------------------------------------------------------------------|
/// | Free    | Claimed | a claim of whole children (no new version)                            |
/// | Claimed | Free    | the free of that block                                                |
/// | Free    | Split   | a split: the child is claimed in parts from here on                   |
/// | Split   | Merging | a larger claim that wants the child back                              |
/// | Merging | Split   | the same claim, if the child is in use; or a claim in the child       |
/// | Merging | Free    | the same claim, if the child is empty and was made inactive           |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// Free as a whole. The child's word is inactive.
    Free = 0b00,
    /// Claimed in parts: the child's own word records which.
    Split = 0b01,
    /// About to be merged.
    Merging = 0b10,
    /// Claimed as a whole. The child's word is inactive.
    Claimed = 0b11,
}

/// The value of a word, unpacked by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TreeWord(pub(super) u64);

impl TreeWord {
    pub(super) const FREE: TreeWord = TreeWord(0);
    pub(super) const INACTIVE: TreeWord = TreeWord(INACTIVE);
    pub(super) const CLOSED_FLAG: u64 = CLOSED;
    pub(super) const WAITERS_FLAG: u64 = WAITERS;

    #[inline]
    pub(super) fn state(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn version(self) -> u64 {
        self.0 / VERSION_ONE
    }

    #[inline]
    pub(super) fn is_inactive(self) -> bool {
        self.0 & INACTIVE != 0
    }

    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    #[inline]
    pub(super) fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// Returns the bits that a claim at this level may not touch.
    #[inline]
    pub(super) fn occupied(self, level: u32) -> u32 {
        let state = self.state();
        if level == 0 {
            return state;
        }
        // A child that is not `Free` occupies both its bits.
        ((state | (state >> 1)) & CHILD_LOW) * 3
    }

    /// Returns the bits of the blocks that are claimed in this word itself, not below it.
    #[inline]
    pub(super) fn claimed(self, level: u32) -> u32 {
        let state = self.state();
        if level == 0 {
            return state;
        }
        (state & (state >> 1) & CHILD_LOW) * 3
    }

    #[inline]
    pub(super) fn with_claim(self, mask: u32) -> TreeWord {
        TreeWord(self.0 | u64::from(mask))
    }

    #[inline]
    pub(super) fn without_claim(self, mask: u32) -> TreeWord {
        TreeWord((self.0 & !u64::from(mask)).wrapping_add(VERSION_ONE))
    }

    pub(super) fn deactivated(self) -> TreeWord {
        TreeWord(((self.0 & !u64::from(u32::MAX)) | INACTIVE).wrapping_add(VERSION_ONE))
    }

    pub(super) fn activated(self, claim: u32) -> TreeWord {
        TreeWord(((self.0 & !INACTIVE) | u64::from(claim)).wrapping_add(VERSION_ONE))
    }

    pub(super) fn child(self, child: u32) -> Child {
        match (self.state() >> (2 * child)) & 0b11 {
            0b00 => Child::Free,
            0b01 => Child::Split,
            0b10 => Child::Merging,
            _ => Child::Claimed,
        }
    }

    pub(super) fn with_child(self, child: u32, to: Child) -> TreeWord {
        let shift = 2 * child;
        let cleared = self.0 & !(0b11 << shift);
        TreeWord((cleared | ((to as u64) << shift)).wrapping_add(VERSION_ONE))
    }

    /// Returns the children that are split or merging, bit `c` for child `c`.
    pub(super) fn split_children(self) -> u32 {
        let state = self.state();
        // Split and Merging are the two values whose bits differ.
        pack_pairs((state ^ (state >> 1)) & CHILD_LOW)
    }
}

/// Moves bit `2 c` to bit `c`.
fn pack_pairs(mut bits: u32) -> u32 {
    bits = (bits | (bits >> 1)) & 0x3333_3333;
    bits = (bits | (bits >> 2)) & 0x0F0F_0F0F;
    bits = (bits | (bits >> 4)) & 0x00FF_00FF;
    (bits | (bits >> 8)) & 0x0000_FFFF
}

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

/// Returns the number of small orders that share field 1 on `level`.
#[inline]
fn skipped(level: u32) -> u32 {
    (4 * level + 6).saturating_sub(FIELD_MAX)
}

/// Returns the field for a word of `level` whose largest free block has `order`.
#[inline]
pub(super) fn field(level: u32, order: u32) -> u32 {
    (order + 1).saturating_sub(skipped(level)).max(1)
}

/// Returns the field for a word of `level` that is free as a whole.
#[inline]
pub(super) fn field_whole(level: u32) -> u32 {
    field(level, 4 * level + 5)
}

/// Returns the largest order that `field` may stand for.
pub(super) fn order_of(level: u32, field: u32) -> Option<u32> {
    (field != 0).then(|| field - 1 + skipped(level))
}

/// The hints for the children of one node: a field of four bits for each.
///
/// A field estimates the largest block that is free in a child. Field 0 is "nothing"; a field of
/// more is the order of the block, plus one. High levels have more orders than four bits can count:
/// there the small orders share field 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HintWord(pub(super) u64);

impl HintWord {
    /// Makes a word whose fields all are `field`.
    pub(super) fn all(field: u32) -> HintWord {
        HintWord(0x1111_1111_1111_1111 * u64::from(field))
    }

    #[inline]
    pub(super) fn get(self, child: u32) -> u32 {
        (self.0 >> (4 * child)) as u32 & FIELD_MAX
    }

    pub(super) fn with(self, child: u32, field: u32) -> HintWord {
        let shift = 4 * child;
        HintWord((self.0 & !(u64::from(FIELD_MAX) << shift)) | (u64::from(field) << shift))
    }

    /// Finds the children whose field is at least `field`: bit `c` for child `c`.
    #[inline]
    pub(super) fn at_least(self, field: u32) -> u32 {
        // Four-bit fields in bytes, so that adding `128 - field` carries into bit 7 from `field`
        // on.
        let compare = |fields: u64| {
            let carried = (fields & (BYTES * 0xF)) + BYTES * u64::from(128 - field);
            // Collects bit 7 of each byte: byte `i` to bit `i`.
            ((carried >> 7) & BYTES).wrapping_mul(0x0102_0408_1020_4080) >> 56
        };
        let (even, odd) = (compare(self.0), compare(self.0 >> 4));
        spread(even as u32) | (spread(odd as u32) << 1)
    }

    /// Finds the child with the smallest field among `of`, all of which have at least `field`.
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

    /// Returns the largest field among the children `of`.
    pub(super) fn largest(self, of: u32) -> u32 {
        (1..=FIELD_MAX).rev().find(|&field| self.at_least(field) & of != 0).unwrap_or(0)
    }
}

/// The words below one node: two cache lines. Threads that work below different nodes share none,
/// not even through the prefetch of the neighbouring line.
#[repr(align(128))]
struct Group([AtomicU64; CHILDREN]);

/// An array of atomic words, in groups of two cache lines.
pub(super) struct PaddedWords(Box<[Group]>);

impl PaddedWords {
    /// Makes `len` words with the values of `bits`. Returns `None` if there is no memory for them.
    pub(super) fn new(len: usize, bits: impl Fn(usize) -> u64) -> Option<PaddedWords> {
        let group = |group: usize| {
            Group(std::array::from_fn(|word| AtomicU64::new(bits(group * CHILDREN + word))))
        };
        let count = len.div_ceil(CHILDREN);
        let mut groups = Vec::new();
        groups.try_reserve_exact(count).ok()?;
        groups.extend((0..count).map(group));
        Some(PaddedWords(groups.into_boxed_slice()))
    }

    #[inline]
    pub(super) fn get(&self, position: usize) -> &AtomicU64 {
        &self.0[position / CHILDREN].0[position % CHILDREN]
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_child_has_its_own_two_bits_and_every_move_a_new_version() {
        let mut word = TreeWord::FREE;
        for (child, to) in [(0, Child::Split), (5, Child::Merging), (15, Child::Split)] {
            let before = word.version();
            word = word.with_child(child, to);
            assert_eq!(word.child(child), to);
            assert_eq!(word.version(), before + 1);
        }
        word = word.with_claim(0b11 << 6);
        assert_eq!(word.child(3), Child::Claimed);
        assert_eq!(word.split_children(), 0b1000_0000_0010_0001);
        assert_eq!(word.occupied(1), 0b11 | 0b11 << 6 | 0b11 << 10 | 0b11 << 30);
        assert_eq!(word.claimed(1), 0b11 << 6);
    }

    #[test]
    fn the_version_wraps_into_nothing_and_flags_stay() {
        let mut word = TreeWord(!INACTIVE);
        word = word.without_claim(1);
        assert_eq!(word.version(), 0);
        assert!(word.is_closed() && word.has_waiters() && !word.is_inactive());
        let word = word.deactivated();
        assert!(word.is_inactive() && word.has_waiters() && word.state() == 0);
        assert_eq!(word.activated(6).state(), 6);
    }

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
            let fields = HintWord(random);
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
}
