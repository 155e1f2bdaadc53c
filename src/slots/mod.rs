//! 2 BOOKS: which indices are claimed. No pointers, no unsafe code, no kernel.
//!
//! Uses only `sync`, so that its loom models need no memory at all.

mod blocks;
mod map;
mod word;

pub(crate) use blocks::{BLOCK_ORDER_MAX, BlockMap, free_block, free_block_despite_waiters};
pub(crate) use map::{SLOTS_MAX, SlotMap};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use word::SLOTS_PER_WORD;
pub(crate) use word::{FreeStep, Freed, free_despite_waiters, free_plainly, free_slot};

#[cfg(all(test, uring_arena_loom))]
mod loom_tests;
#[cfg(all(test, not(uring_arena_loom)))]
mod tests;
