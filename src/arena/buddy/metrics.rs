//! The numbers of a buddy arena.

use super::arena::BuddyArena;
use crate::arena::slot_states::SlotStates;
use crate::sync::Ordering;

/// A snapshot of the counters of a [`BuddyArena`].
///
/// The numbers are exact if no other thread claims or frees meanwhile. At rest
/// `allocations_ok == frees` and `bytes_live == 0`. A spill frees its block, and so counts one
/// free.
///
/// ```
/// use uring_arena::BuddyArena;
///
/// let arena = BuddyArena::new(4096, 512)?;
/// let buffer = arena.allocate_bytes(600)?;
/// let metrics = arena.metrics();
/// assert_eq!((metrics.bytes_live, metrics.largest_free_block), (1024, 2048));
/// drop(buffer);
/// assert_eq!(arena.metrics().largest_free_block, 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BuddyArenaMetrics {
    /// The claims that were served.
    pub allocations_ok: u64,
    /// The claims that were refused: too large, or no such block free.
    pub allocations_failed: u64,
    /// The blocks that were freed.
    pub frees: u64,
    /// The buffers that were frozen without leaving their block.
    pub frozen: u64,
    /// The buffers that outgrew their block and moved to the heap.
    pub spills: u64,
    /// The bytes that the arena manages.
    pub bytes_reserved: usize,
    /// The bytes of the blocks that have an owner now, whole blocks counted.
    pub bytes_live: usize,
    /// The number of times that a free run was split for smaller blocks. A run is split once for
    /// many claims, not once per halving.
    pub splits: u64,
    /// The number of times that such a run, empty again, was merged for a larger block. Freed
    /// neighbours are one block without a merge.
    pub coalesces: u64,
    /// The bytes of the largest block that could be claimed now; 0 if nothing is free.
    pub largest_free_block: usize,
    /// The blocks that are lost for good, because the kernel may still write to them.
    pub quarantined: u64,
}

impl BuddyArena {
    /// Takes a snapshot of the counters.
    ///
    /// The call walks over all smallest blocks: it is for monitoring, not for hot paths. The
    /// example of [`BuddyArenaMetrics`] shows it.
    pub fn metrics(&self) -> BuddyArenaMetrics {
        let handle = self.handle();
        let blocks = handle.allocator.blocks();
        let (splits, coalesces) = blocks.splits_and_merges();
        let live_blocks = handle.live_blocks();
        let allocations_ok = handle.claims();
        // Relaxed: counters.
        BuddyArenaMetrics {
            allocations_ok,
            allocations_failed: handle.waiters.refusals(),
            frees: allocations_ok.saturating_sub(live_blocks),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: blocks.live_min_blocks() as usize * handle.slot_bytes,
            splits,
            coalesces,
            largest_free_block: blocks
                .largest_free_order()
                .map_or(0, |order| handle.slot_bytes << order),
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
        }
    }

    /// Counts the smallest blocks by state.
    ///
    /// The call walks over the whole allocator: it is for monitoring, not for hot paths.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(4096, 512)?;
    /// let block = arena.allocate_bytes(1000)?;
    /// let states = arena.slot_states();
    /// assert_eq!((states.free, states.held), (6, 2));
    /// # drop(block);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_states(&self) -> SlotStates {
        SlotStates::of(self.handle(), |_| None)
    }
}
