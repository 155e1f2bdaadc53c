//! The allocators: which indices are claimed. No pointers, no unsafe code, no kernel.
//!
//! This folder uses only `sync`, so that its models need no memory at all.

mod allocator;
mod bitmap;
mod buddy;
#[cfg(all(test, uring_arena_loom))]
mod models;
mod runs;

pub(crate) use allocator::Allocator;
pub(crate) use bitmap::SLOTS_PER_WORD;
#[cfg(all(test, not(uring_arena_loom)))]
pub(crate) use bitmap::take_passes;
pub(crate) use bitmap::{FreeOutcome, GATE, SLOTS_MAX, Search, SlotBitmap, SlotFree, SlotGroup};
pub(crate) use buddy::{BLOCK_ORDER_MAX, BuddyAllocator};
pub(crate) use runs::SlotRun;
