//! An array of words in whole cache lines.

use super::levels::CHILDREN;
use crate::sync::AtomicU64;

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
