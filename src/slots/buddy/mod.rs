//! The allocator of a buddy arena: blocks of variable size in a tree of words.
//!
//! A block of order `k` is `1 << k` smallest blocks, aligned to its length. A claim sets the bits
//! of the block in one word of the tree, and a free clears them. Two neighbours that are both clear
//! are, without further work, a larger block. A parent word splits when smaller blocks are wanted,
//! and merges when a larger claim finds the child word empty. `docs/design/buddy.md` has the
//! definitions, the invariants and the reasons.

mod allocator;
mod hints;
mod levels;
#[cfg(all(test, uring_arena_loom))]
mod models;
mod runs;
mod scan;
mod split_merge;
mod stats;
#[cfg(all(test, not(uring_arena_loom)))]
mod tests;
mod thread_cache;
mod tree;
mod word;

pub(crate) use allocator::{BLOCK_ORDER_MAX, BuddyAllocator};
