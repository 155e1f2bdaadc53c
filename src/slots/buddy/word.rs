//! One word of the books, packed.
//!
//! ```text
//! bit 63 ............ 35   34       33      32      31 ........ 0
//!     version (29 bits)    WAITERS  CLOSED  SEALED  state
//! ```
//!
//! At level 0 (a *row*) the state is one bit per unit, set while the unit is claimed. Above it (a
//! *node*) the state is two bits for each of the 16 words below, so that a run of `TAKEN`
//! children is again a run of set bits and the same arithmetic serves every level.
//!
//! The version grows with every change that is not a claim. Two equal versions with nothing
//! free at the first therefore mean: nothing was free between them either.

/// The word belongs to its parent: nothing may be claimed in it, and its state is zero.
const SEALED: u64 = 1 << 32;
/// The last handle is gone: a free that leaves no claim here counts the word as drained.
const CLOSED: u64 = 1 << 33;
/// Somebody waits for memory: a free must take the road that wakes.
const WAITERS: u64 = 1 << 34;
const VERSION_ONE: u64 = 1 << 35;

/// The low bit of each child's two.
const CHILD_LOW: u32 = 0x5555_5555;

/// What a node knows of one of the 16 words below it. The transitions:
///
/// ```text
/// Free ──► Taken            a claim of whole children       (no new version)
/// Taken ─► Free             the free of that block
/// Free ──► Open             handed down, to be claimed in parts
/// Open ──► Closing          a larger claim wants it back
/// Closing ► Open | Free     it turned out to be in use | it was empty and is sealed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// Belongs to the node and is free as a whole. The child's word is sealed.
    Free = 0b00,
    /// Handed down: the child's own word says what is claimed in it.
    Open = 0b01,
    /// Being taken back.
    Closing = 0b10,
    /// Claimed as a whole. The child's word is sealed.
    Taken = 0b11,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    pub(super) const FREE: Word = Word(0);
    pub(super) const SEALED: Word = Word(SEALED);
    pub(super) const CLOSED_FLAG: u64 = CLOSED;
    pub(super) const WAITERS_FLAG: u64 = WAITERS;

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Word {
        Word(bits)
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn state(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn version(self) -> u64 {
        self.0 / VERSION_ONE
    }

    #[inline]
    pub(super) fn is_sealed(self) -> bool {
        self.0 & SEALED != 0
    }

    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    #[inline]
    pub(super) fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// The bits that a claim at this level may not touch.
    #[inline]
    pub(super) fn occupied(self, level: u32) -> u32 {
        let state = self.state();
        if level == 0 {
            return state;
        }
        // A child that is not `Free` occupies both its bits.
        ((state | (state >> 1)) & CHILD_LOW) * 3
    }

    /// The bits of blocks claimed in this word itself, not below it.
    #[inline]
    pub(super) fn claimed(self, level: u32) -> u32 {
        let state = self.state();
        if level == 0 {
            return state;
        }
        (state & (state >> 1) & CHILD_LOW) * 3
    }

    #[inline]
    pub(super) fn with_claim(self, mask: u32) -> Word {
        Word(self.0 | u64::from(mask))
    }

    #[inline]
    pub(super) fn without_claim(self, mask: u32) -> Word {
        Word((self.0 & !u64::from(mask)).wrapping_add(VERSION_ONE))
    }

    pub(super) fn sealed(self) -> Word {
        Word(((self.0 & !u64::from(u32::MAX)) | SEALED).wrapping_add(VERSION_ONE))
    }

    pub(super) fn unsealed(self, claim: u32) -> Word {
        Word(((self.0 & !SEALED) | u64::from(claim)).wrapping_add(VERSION_ONE))
    }

    pub(super) fn child(self, child: u32) -> Child {
        match (self.state() >> (2 * child)) & 0b11 {
            0b00 => Child::Free,
            0b01 => Child::Open,
            0b10 => Child::Closing,
            _ => Child::Taken,
        }
    }

    pub(super) fn with_child(self, child: u32, to: Child) -> Word {
        let shift = 2 * child;
        let cleared = self.0 & !(0b11 << shift);
        Word((cleared | ((to as u64) << shift)).wrapping_add(VERSION_ONE))
    }

    /// The children that are handed down, bit `c` for child `c`.
    pub(super) fn handed_down(self) -> u32 {
        let state = self.state();
        // Open and Closing are the two values whose bits differ.
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
        let mut word = Word::FREE;
        for (child, to) in [(0, Child::Open), (5, Child::Closing), (15, Child::Open)] {
            let before = word.version();
            word = word.with_child(child, to);
            assert_eq!(word.child(child), to);
            assert_eq!(word.version(), before + 1);
        }
        word = word.with_claim(0b11 << 6);
        assert_eq!(word.child(3), Child::Taken);
        assert_eq!(word.handed_down(), 0b1000_0000_0010_0001);
        assert_eq!(word.occupied(1), 0b11 | 0b11 << 6 | 0b11 << 10 | 0b11 << 30);
        assert_eq!(word.claimed(1), 0b11 << 6);
    }

    #[test]
    fn the_version_wraps_into_nothing_and_flags_stay() {
        let mut word = Word::from_bits(!SEALED);
        word = word.without_claim(1);
        assert_eq!(word.version(), 0);
        assert!(word.is_closed() && word.has_waiters() && !word.is_sealed());
        let word = word.sealed();
        assert!(word.is_sealed() && word.has_waiters() && word.state() == 0);
        assert_eq!(word.unsealed(6).state(), 6);
    }
}
