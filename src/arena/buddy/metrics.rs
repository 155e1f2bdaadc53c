//! The numbers of a buddy arena.

use std::time::Duration;

use super::arena::BuddyArena;
use crate::arena::counts::{ArenaCounts, CountTexts};
use crate::arena::slot_states::{SlotMap, SlotStates};
#[cfg(feature = "holders")]
use crate::lease::Holders;
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};

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
        let (splits, coalesces) = self.handle().allocator.blocks().splits_and_merges();
        let counts = ArenaCounts::of(self.handle());
        BuddyArenaMetrics {
            allocations_ok: counts.claims,
            allocations_failed: counts.refusals,
            frees: counts.frees,
            frozen: counts.frozen,
            spills: counts.spills,
            bytes_reserved: counts.bytes_reserved,
            bytes_live: counts.bytes_live,
            splits,
            coalesces,
            largest_free_block: self.largest_free_block(),
            quarantined: counts.quarantined,
            bytes_live_max: counts.bytes_live_max,
            waiters: counts.waits.waiters,
            waiters_max: counts.waits.waiters_max,
            waits: counts.waits.waits,
            longest_wait: counts.waits.longest_wait,
        }
    }

    fn largest_free_block(&self) -> usize {
        let order = self.handle().allocator.blocks().largest_free_order();
        order.map_or(0, |order| self.handle().slot_bytes << order)
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

    /// Takes a map of the blocks that have an owner: where each lies, its size, and its state.
    ///
    /// The call walks over the whole allocator: it is for monitoring, not for hot paths.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(4096, 512)?;
    /// let held = arena.allocate_bytes(1000)?;
    /// for counts in arena.slot_map().blocks() {
    ///     println!("{} bytes: {} used, {} free", counts.bytes, counts.claimed, counts.free);
    /// }
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_map(&self) -> SlotMap {
        SlotMap::of(self.handle(), |_| None)
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

const TEXTS: CountTexts = CountTexts {
    refusals: "Claims that were refused: too large, or no such block free",
    frees: "Blocks that were freed",
    freezes: "Buffers frozen in their block",
    reserved: "Bytes of the arena",
    live: "Bytes of blocks in use",
};

impl HasMetricsPart for BuddyArena {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let states = self.slot_states();
        let counts = ArenaCounts::of(self.handle());
        let (splits, merges) = self.handle().allocator.blocks().splits_and_merges();
        let part = MetricsPart::new("arena", name).label("mode", "blocks");
        let part = counts
            .add_claims(states.add_to(part), &TEXTS)
            .counter("uring_arena_splits_total", "Free runs that were split", splits)
            .counter("uring_arena_merges_total", "Runs that were merged", merges);
        let part = counts.add_bytes(part, &TEXTS).bytes(
            "uring_arena_largest_free_bytes",
            "Bytes of the largest block that could be claimed",
            self.largest_free_block(),
        );
        counts.add_waits(part)
    }
}
