//! The number of slots in each state.

use std::fmt;

use crate::lease::{ClaimedSlot, Handle};
use crate::metrics::MetricsPart;

/// The slots of a fixed arena, or the smallest blocks of a buddy arena, counted by state.
///
/// Each slot is counted once. [`FixedArena::slot_states`](crate::FixedArena::slot_states) and
/// [`BuddyArena::slot_states`](crate::BuddyArena::slot_states) do not know about rings: they count
/// `published` and `in_flight` as zero, and those slots among `held` and `frozen`.
/// `Driver::slot_states` tells them apart for its own rings and operations.
///
/// **How exact this is.** All numbers are exact while nothing claims, frees or freezes. If other
/// threads do meanwhile:
///
/// * Each slot of a fixed arena is still counted once, so the numbers always add up to
///   [`total`](Self::total).
/// * A slot counts as free or not as of one instant within the call. That instant is common to 32
///   neighbouring slots.
/// * A slot that is not free counts by the last state that its owner had set when the walk came by.
///   If the slot was freed and claimed again in between, that is the state of its new owner.
/// * A block of a buddy arena that changes its size during the walk may be counted twice or not at
///   all.
///
/// ```
/// use uring_arena::FixedArena;
///
/// let arena = FixedArena::new(8, 64)?;
/// let held = arena.allocate()?;
/// let states = arena.slot_states();
/// assert_eq!((states.free, states.held, states.total()), (7, 1, 8));
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SlotStates {
    /// The slots without an owner.
    pub free: usize,
    /// The slots that the program may write, as buffers. Slots that are granted to a woken waiter,
    /// and those that a [`LocalArena`](crate::LocalArena) keeps idle, count here too.
    pub held: usize,
    /// The slots in a driver's buffer rings: the kernel may receive into them. A slot of an
    /// incremental ring may hold messages besides.
    pub published: usize,
    /// The slots in reads, writes and sends of a driver that the kernel has, frozen or not.
    pub in_flight: usize,
    /// The slots that the program may only read, as [`ArenaBytes`](crate::ArenaBytes) or
    /// [`Bytes`](bytes::Bytes).
    pub frozen: usize,
    /// The slots that are lost for good.
    pub quarantined: usize,
}

/// Writes the states that some slot has in one line: `7 free, 1 held`.
impl fmt::Display for SlotStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free", self.free)?;
        for (count, state) in [
            (self.held, "held"),
            (self.published, "ready"),
            (self.in_flight, "in flight"),
            (self.frozen, "frozen"),
            (self.quarantined, "quarantined"),
        ] {
            if count > 0 {
                write!(f, ", {count} {state}")?;
            }
        }
        Ok(())
    }
}

/// The state of a slot that a driver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRing {
    Published,
    InFlight,
}

impl SlotStates {
    /// Returns the number of all slots, or smallest blocks, of the arena.
    pub fn total(&self) -> usize {
        self.free + self.held + self.published + self.in_flight + self.frozen + self.quarantined
    }

    /// Adds the states to the metrics of an arena.
    pub(crate) fn add_to(&self, part: MetricsPart) -> MetricsPart {
        part.gauge("uring_arena_slots_free", "Slots, or smallest blocks, that are free", self.free)
            .gauge("uring_arena_slots_held", "Slots that the program may write", self.held)
            .gauge("uring_arena_slots_ready", "Slots in buffer rings", self.published)
            .gauge("uring_arena_slots_in_flight", "Slots in operations", self.in_flight)
            .gauge("uring_arena_slots_frozen", "Slots that the program may read", self.frozen)
            .gauge("uring_arena_slots_quarantined", "Slots lost for good", self.quarantined)
    }

    /// Counts the slots of the arena of `handle`. `on_ring` returns the state of a claimed slot
    /// that a ring has.
    pub(crate) fn of(
        handle: &Handle,
        mut on_ring: impl FnMut(&ClaimedSlot) -> Option<OnRing>,
    ) -> SlotStates {
        let mut states = SlotStates::default();
        let mut claimed_blocks = 0;
        handle.for_each_claimed(|claimed| {
            let min_blocks = claimed.min_blocks as usize;
            claimed_blocks += min_blocks;
            let state = match on_ring(&claimed) {
                _ if claimed.quarantined => &mut states.quarantined,
                Some(OnRing::Published) => &mut states.published,
                Some(OnRing::InFlight) => &mut states.in_flight,
                None if claimed.frozen => &mut states.frozen,
                None => &mut states.held,
            };
            *state += min_blocks;
        });
        states.free = handle.index_count().saturating_sub(claimed_blocks);
        states
    }
}
