//! 2 BOOKS: which indices are claimed. No pointers, no unsafe code, no kernel.
//!
//! Uses only `sync`, so that its loom models need no memory at all.

mod bitmap;
mod buddy;
mod word;

pub(crate) use bitmap::{SLOTS_MAX, SlotBitmap};
pub(crate) use buddy::{BLOCK_ORDER_MAX, BuddyAllocator, free_block, free_block_despite_waiters};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use word::SLOTS_PER_WORD;
pub(crate) use word::{FreeOutcome, FreeStep, free_despite_waiters, free_plainly, free_slot};

#[cfg(all(test, uring_arena_loom))]
mod loom_tests;
#[cfg(all(test, not(uring_arena_loom)))]
mod tests;
