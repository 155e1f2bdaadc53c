//! What a search remembers of one walk over the tree.

use super::levels::At;
use super::word::Word;

/// One pass over the tree.
pub(super) struct Pass {
    pub(super) level: u32,
    pub(super) order: u32,
    /// Reads every word that could matter, whatever the hints say.
    pub(super) all: bool,
    /// A digest of each word read and its version. 64 bits of a mixing multiplication: that two
    /// different passes agree by accident is as unlikely as anything a computer does.
    pub(super) digest: u64,
    /// Something free was seen and lost to somebody else, so the pass proves nothing.
    pub(super) unsure: bool,
}

impl Pass {
    pub(super) fn new(level: u32, order: u32, all: bool) -> Pass {
        Pass { level, order, all, digest: 0, unsure: false }
    }

    pub(super) fn saw(&mut self, at: At, word: Word) {
        let place = (u64::from(at.level) << 32) | u64::from(at.index);
        for value in [place, word.version()] {
            let mixed = (self.digest ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.digest = mixed ^ (mixed >> 29);
        }
    }
}

/// The numbers of the bits that are set, the lowest first.
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lowest = set.checked_ilog2().map(|_| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        lowest
    })
}
