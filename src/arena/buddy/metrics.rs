//! The numbers of a buddy arena.

use std::time::Duration;

use super::arena::BuddyArena;
use crate::arena::slot_states::SlotStates;
#[cfg(feature = "holders")]
use crate::lease::Holders;
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};
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
    /// The most bytes that were known to be live at one time, whole blocks counted.
    ///
    /// No claim and no free counts them. The mark is taken at snapshots, when a claim waits, and at
    /// some refusals.
    pub bytes_live_max: usize,
    /// The claimants that wait for a block now.
    pub waiters: usize,
    /// The most claimants that waited at one time.
    pub waiters_max: usize,
    /// The waits that began.
    pub waits: u64,
    /// The longest wait, be it over or not.
    pub longest_wait: Duration,
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
        let live_min_blocks = handle.note_live();
        let waits = handle.waiters.counts();
        let allocations_ok = handle.claims();
        // Relaxed: counters.
        BuddyArenaMetrics {
            allocations_ok,
            allocations_failed: handle.waiters.refusals(),
            frees: allocations_ok.saturating_sub(live_blocks),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: live_min_blocks * handle.slot_bytes,
            splits,
            coalesces,
            largest_free_block: blocks
                .largest_free_order()
                .map_or(0, |order| handle.slot_bytes << order),
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
            bytes_live_max: handle.live_max() * handle.slot_bytes,
            waiters: waits.waiters,
            waiters_max: waits.waiters_max,
            waits: waits.waits,
            longest_wait: waits.longest_wait,
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

    /// Takes a snapshot of who holds the memory, for an arena that
    /// [tracks](crate::BuddyArenaBuilder::track_holders) it.
    ///
    /// The call walks over all claims: it is for monitoring, not for hot paths. A driver's own
    /// [`holders`](crate::Driver::holders) also tells what the kernel has.
    ///
    /// ```
    /// use uring_arena::{BuddyArena, TrackHolders};
    ///
    /// let builder = BuddyArena::with_sizes(32768, 4096).track_holders(TrackHolders::All);
    /// let arena = builder.build()?;
    /// let held = arena.allocate_bytes(100)?;
    /// let holders = arena.holders();
    /// assert_eq!(holders.by_place()[0].claims, 1);
    /// println!("{holders}");
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "holders")]
    pub fn holders(&self) -> Holders {
        Holders::of(self.handle(), |_| None)
    }
}

impl HasMetricsPart for BuddyArena {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let states = self.slot_states();
        let metrics = self.metrics();
        let part = MetricsPart::new("arena", name).label("mode", "blocks");
        states
            .add_to(part)
            .counter("uring_arena_claims_total", "Claims that were served", metrics.allocations_ok)
            .counter(
                "uring_arena_refusals_total",
                "Claims that were refused: too large, or no such block free",
                metrics.allocations_failed,
            )
            .counter("uring_arena_frees_total", "Blocks that were freed", metrics.frees)
            .counter("uring_arena_freezes_total", "Buffers frozen in their block", metrics.frozen)
            .counter("uring_arena_spills_total", "Buffers that moved to the heap", metrics.spills)
            .counter("uring_arena_splits_total", "Free runs that were split", metrics.splits)
            .counter("uring_arena_merges_total", "Runs that were merged", metrics.coalesces)
            .bytes("uring_arena_reserved_bytes", "Bytes of the arena", metrics.bytes_reserved)
            .bytes("uring_arena_live_bytes", "Bytes of blocks in use", metrics.bytes_live)
            .bytes(
                "uring_arena_live_max_bytes",
                "Most bytes known to be in use at one time",
                metrics.bytes_live_max,
            )
            .bytes(
                "uring_arena_largest_free_bytes",
                "Bytes of the largest block that could be claimed",
                metrics.largest_free_block,
            )
            .gauge("uring_arena_waiters", "Claimants that wait now", metrics.waiters)
            .gauge(
                "uring_arena_waiters_max",
                "Most claimants that waited at one time",
                metrics.waiters_max,
            )
            .counter("uring_arena_waits_total", "Waits that began", metrics.waits)
            .time("uring_arena_longest_wait_seconds", "Longest wait", metrics.longest_wait)
    }
}
