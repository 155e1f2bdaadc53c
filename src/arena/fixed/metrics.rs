//! The numbers of a fixed arena.

use std::time::Duration;

use super::arena::FixedArena;
use crate::arena::counts::{ArenaCounts, CountTexts};
use crate::arena::slot_states::{SlotMap, SlotStates};
#[cfg(feature = "holders")]
use crate::lease::Holders;
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};

/// A snapshot of the counters of a [`FixedArena`].
///
/// The numbers are exact if no other thread claims or frees meanwhile. At rest
/// `allocations_ok == frees` and `bytes_live == 0`. A spill frees its slot, and so counts one free.
///
/// ```
/// let arena = uring_arena::FixedArena::new(8, 64)?;
/// let buffer = arena.allocate()?;
/// let metrics = arena.metrics();
/// assert_eq!((metrics.allocations_ok, metrics.frees, metrics.bytes_live), (1, 0, 64));
/// # drop(buffer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FixedArenaMetrics {
    /// The claims that were served.
    pub allocations_ok: u64,
    /// The claims that were refused because no slot was free.
    pub allocations_failed: u64,
    /// The slots that were freed.
    pub frees: u64,
    /// The buffers that were frozen without leaving their slot.
    pub frozen: u64,
    /// The buffers that outgrew their slot and moved to the heap.
    pub spills: u64,
    /// The bytes of all slots.
    pub bytes_reserved: usize,
    /// The bytes of the slots that have an owner now, whole slots counted.
    pub bytes_live: usize,
    /// The slots that are lost for good, because the kernel may still write to them.
    pub quarantined: u64,
    /// The bytes of messages that buffer rings copied out of the arena and that live now.
    pub copied_bytes: usize,
    /// The most bytes that were known to be live at one time, whole slots counted.
    ///
    /// No claim and no free counts them. The mark is taken at snapshots, when a claim waits, and
    /// when a buffer ring looks whether slots are few. It is exact once a claim was refused or
    /// waited: then every slot was in use.
    pub bytes_live_max: usize,
    /// The claimants that wait for a slot now.
    pub waiters: usize,
    /// The most claimants that waited at one time.
    pub waiters_max: usize,
    /// The waits that began.
    pub waits: u64,
    /// The longest wait, be it over or not.
    pub longest_wait: Duration,
}

impl FixedArena {
    /// Takes a snapshot of the counters.
    ///
    /// The call walks over all slots: it is for monitoring, not for hot paths. The example of
    /// [`FixedArenaMetrics`] shows it.
    pub fn metrics(&self) -> FixedArenaMetrics {
        let counts = ArenaCounts::of(self.handle());
        FixedArenaMetrics {
            allocations_ok: counts.claims,
            allocations_failed: counts.refusals,
            frees: counts.frees,
            frozen: counts.frozen,
            spills: counts.spills,
            bytes_reserved: counts.bytes_reserved,
            bytes_live: counts.bytes_live,
            quarantined: counts.quarantined,
            copied_bytes: self.handle().copied.live(),
            bytes_live_max: counts.bytes_live_max,
            waiters: counts.waits.waiters,
            waiters_max: counts.waits.waiters_max,
            waits: counts.waits.waits,
            longest_wait: counts.waits.longest_wait,
        }
    }

    /// Returns whether no slot is free now. Walks over all words.
    #[cfg(all(feature = "tokio", feature = "io-uring", target_os = "linux"))]
    pub(crate) fn is_full(&self) -> bool {
        self.handle().allocator.slots().live() == self.slot_count()
    }

    /// Counts the slots by state.
    ///
    /// The call walks over all slots: it is for monitoring, not for hot paths.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::new(8, 64)?;
    /// let (held, mut written) = (arena.allocate()?, arena.allocate()?);
    /// written.put_slice(b"hello");
    /// let frozen = written.freeze();
    /// let states = arena.slot_states();
    /// assert_eq!((states.free, states.held, states.frozen), (6, 1, 1));
    /// assert_eq!(states.total(), 8);
    /// # drop((held, frozen));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_states(&self) -> SlotStates {
        SlotStates::of(self.handle(), |_| None)
    }

    /// Takes a map of the slots that have an owner: where each lies, and its state.
    ///
    /// The call walks over all slots: it is for monitoring, not for hot paths. The example of
    /// [`SlotMap`] shows it.
    pub fn slot_map(&self) -> SlotMap {
        SlotMap::of(self.handle(), |_| None)
    }

    /// Takes a snapshot of who holds the memory, for an arena that
    /// [tracks](crate::FixedArenaBuilder::track_holders) it.
    ///
    /// The call walks over all claims: it is for monitoring, not for hot paths. A driver's own
    /// [`holders`](crate::Driver::holders) also tells what the kernel has.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let builder = FixedArena::with_sizes(8, 4096).track_holders(TrackHolders::All);
    /// let arena = builder.build()?;
    /// let held = arena.allocate()?;
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
    refusals: "Claims that were refused because no slot was free",
    frees: "Slots that were freed",
    freezes: "Buffers frozen in their slot",
    reserved: "Bytes of all slots",
    live: "Bytes of slots in use",
};

impl HasMetricsPart for FixedArena {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let states = self.slot_states();
        let counts = ArenaCounts::of(self.handle());
        let part = MetricsPart::new("arena", name).label("mode", "slots");
        let part = counts.add_claims(states.add_to(part), &TEXTS);
        let part = counts.add_bytes(part, &TEXTS).bytes(
            "uring_arena_copied_bytes",
            "Bytes of messages copied out of the arena that live now",
            self.handle().copied.live(),
        );
        counts.add_waits(part)
    }
}
