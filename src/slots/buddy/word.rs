//! One word of the tree, packed.
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
}
