//! Snapshots of a buddy arena's counters.

use super::BuddyArena;
use crate::sync::Ordering;

/// Plain numbers of a [`BuddyArena`], exact when no other thread is claiming or freeing meanwhile.
///
/// At rest `allocations_ok == frees` and `bytes_live == 0`. A spill frees its block, and so counts
/// one free.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use uring_arena::{BuddyArena, BuddyGeometry};
/// # let bytes = |n| NonZeroUsize::new(n).unwrap();
/// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(4096), bytes(512))?).build()?;
/// let buffer = arena.allocate(bytes(600))?;
/// let metrics = arena.metrics();
/// assert_eq!((metrics.bytes_live, metrics.largest_free_block), (1024, 2048));
/// drop(buffer);
/// assert_eq!(arena.metrics().largest_free_block, 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BuddyArenaMetrics {
    /// Claims that were served.
    pub allocations_ok: u64,
    /// Claims that were refused: too large, or no such block free.
    pub allocations_failed: u64,
    /// Blocks that came back.
    pub frees: u64,
    /// Buffers frozen without leaving their block.
    pub frozen: u64,
    /// Buffers that outgrew their block and moved to the heap.
    pub spills: u64,
    /// Bytes that the arena manages.
    pub bytes_reserved: usize,
    /// Bytes of the blocks that have an owner now, whole blocks counted.
    pub bytes_live: usize,
    /// Times that a free run was opened for smaller blocks. Not one per halving: a run is opened
    /// for many claims at once.
    pub splits: u64,
    /// Times that such a run, empty again, was closed for a larger block. Freed neighbours are one
    /// block without it.
    pub coalesces: u64,
    /// Bytes of the largest block that could be claimed now; 0 if nothing is free.
    pub largest_free_block: usize,
    /// Blocks that are lost for good, because the kernel may still write to them.
    pub quarantined: u64,
}

impl BuddyArena {
    /// A snapshot of the counters. Walks over all smallest blocks: for monitoring, not for hot
    /// paths.
    pub fn metrics(&self) -> BuddyArenaMetrics {
        let handle = self.handle();
        let map = handle.allocator.blocks();
        let (splits, coalesces) = map.splits_and_merges();
        let live_blocks = handle.live_blocks();
        let allocations_ok = handle.claims();
        // Relaxed: counters.
        BuddyArenaMetrics {
            allocations_ok,
            allocations_failed: handle.counters.failed.load(Ordering::Relaxed),
            frees: allocations_ok.saturating_sub(live_blocks),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: map.live_units() as usize * handle.slot_bytes,
            splits,
            coalesces,
            largest_free_block: map
                .largest_free_order()
                .map_or(0, |order| handle.slot_bytes << order),
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
        }
    }
}
