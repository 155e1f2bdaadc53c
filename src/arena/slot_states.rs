//! The slots of an arena by state: their numbers, and a map of them.

use std::fmt;

use crate::lease::{ClaimedSlot, Handle, SlotState};
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
        mut on_ring: impl FnMut(&ClaimedSlot) -> Option<SlotState>,
    ) -> SlotStates {
        let mut states = SlotStates::default();
        handle.for_each_claimed(|claimed| {
            states.add(claimed.state(&mut on_ring), claimed.min_blocks as usize);
        });
        states.free = handle.index_count().saturating_sub(states.total());
        states
    }

    /// Counts further slots of one state.
    fn add(&mut self, state: SlotState, slots: usize) {
        let count = match state {
            SlotState::Held => &mut self.held,
            SlotState::Ready => &mut self.published,
            SlotState::InFlight => &mut self.in_flight,
            SlotState::Frozen => &mut self.frozen,
            SlotState::Quarantined => &mut self.quarantined,
        };
        *count += slots;
    }
}

/// One claim in a [`SlotMap`]: a slot, or the smallest blocks of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotRange {
    /// The index of the slot, or of the first smallest block.
    pub first: u32,
    /// The number of smallest blocks; 1 for a slot.
    pub slots: u32,
    /// The state.
    pub state: SlotState,
}

/// The blocks of one size in a buddy arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockCounts {
    /// The bytes of a block.
    pub bytes: usize,
    /// The blocks of this size that have an owner.
    pub claimed: usize,
    /// The free blocks of this size that are not part of a larger free block.
    pub free: usize,
}

/// A map of one arena: the slots, or blocks, that have an owner, by their index.
///
/// It is a snapshot, as exact as [`SlotStates`].
///
/// ```
/// use uring_arena::{FixedArena, SlotState};
///
/// let arena = FixedArena::new(8, 64)?;
/// let held = arena.allocate()?;
/// let map = arena.slot_map();
/// assert_eq!((map.slots(), map.claims().len()), (8, 1));
/// assert_eq!(map.claims()[0].state, SlotState::Held);
/// // Two lines of a picture, each of four slots.
/// let free: usize = map.cells(2).iter().map(|cell| cell.free).sum();
/// assert_eq!(free, 7);
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    // Invariant: in the order of their indices.
    claims: Vec<SlotRange>,
    slots: usize,
    slot_bytes: usize,
    /// The order of the largest block of a buddy arena.
    order_max: Option<u32>,
}

impl SlotMap {
    /// Takes a map of the arena of `handle`. `on_ring` returns the state of a claimed slot that a
    /// ring has.
    pub(crate) fn of(
        handle: &Handle,
        mut on_ring: impl FnMut(&ClaimedSlot) -> Option<SlotState>,
    ) -> SlotMap {
        let mut claims = Vec::new();
        handle.for_each_claimed(|claimed| {
            let (first, slots) = (claimed.first, claimed.min_blocks as u32);
            claims.push(SlotRange { first, slots, state: claimed.state(&mut on_ring) });
        });
        claims.sort_unstable_by_key(|claim| claim.first);
        let has_slots = handle.allocator.has_slots();
        let order_max = (!has_slots).then(|| handle.allocator.blocks().max_order());
        SlotMap { claims, slots: handle.index_count(), slot_bytes: handle.slot_bytes, order_max }
    }

    /// Returns the number of slots, or of smallest blocks.
    ///
    /// The example of [`SlotMap`] shows it.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Returns the bytes of a slot, or of a smallest block.
    ///
    /// ```
    /// let arena = uring_arena::BuddyArena::new(4096, 512)?;
    /// assert_eq!(arena.slot_map().slot_bytes(), 512);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Returns the slots, or blocks, that have an owner, by their index.
    ///
    /// The example of [`SlotMap`] shows it.
    pub fn claims(&self) -> &[SlotRange] {
        &self.claims
    }

    /// Counts the slots by state, as [`FixedArena::slot_states`](crate::FixedArena::slot_states).
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// assert_eq!(arena.slot_map().states(), arena.slot_states());
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn states(&self) -> SlotStates {
        self.cells(1).pop().unwrap_or_default()
    }

    /// Cuts the map into `count` cells, and counts the slots of each by state.
    ///
    /// All cells have as many slots, but for one: of an arena with fewer slots there are as many
    /// cells as slots. A count of 0 is 1.
    ///
    /// The example of [`SlotMap`] shows it.
    pub fn cells(&self, count: usize) -> Vec<SlotStates> {
        let per_cell = self.slots.div_ceil(count.max(1)).max(1);
        let mut cells = vec![SlotStates::default(); self.slots.div_ceil(per_cell)];
        for claim in &self.claims {
            let (mut at, end) = (claim.first as usize, (claim.first + claim.slots) as usize);
            // A block that changed its size during the walk may reach past the end of the arena.
            while at < end.min(self.slots) {
                let next = end.min((at / per_cell + 1) * per_cell);
                cells[at / per_cell].add(claim.state, next - at);
                at = next;
            }
        }
        for (number, cell) in cells.iter_mut().enumerate() {
            let slots = per_cell.min(self.slots - number * per_cell);
            cell.free = slots.saturating_sub(cell.total());
        }
        cells
    }

    /// Counts the blocks of a buddy arena by their size, the smallest first. Returns none for a
    /// fixed arena.
    ///
    /// The example of [`BuddyArena::slot_map`](crate::BuddyArena::slot_map) shows it.
    pub fn blocks(&self) -> Vec<BlockCounts> {
        let Some(order_max) = self.order_max else { return Vec::new() };
        let counts = |order| BlockCounts { bytes: self.slot_bytes << order, claimed: 0, free: 0 };
        let mut blocks: Vec<BlockCounts> = (0..=order_max).map(counts).collect();
        let mut free_from = 0;
        let past_all = SlotRange { first: self.slots as u32, slots: 0, state: SlotState::Held };
        for claim in self.claims.iter().chain([&past_all]) {
            while free_from < claim.first {
                // The largest block that begins here and ends before the claim.
                let aligned = free_from.trailing_zeros().min(order_max);
                let order = aligned.min((claim.first - free_from).ilog2());
                blocks[order as usize].free += 1;
                free_from += 1 << order;
            }
            if claim.slots > 0 {
                blocks[claim.slots.ilog2().min(order_max) as usize].claimed += 1;
            }
            free_from = free_from.max(claim.first + claim.slots);
        }
        blocks
    }
}
