//! Where the memory of an arena is.

use super::{BuddyArena, FixedArena};
use crate::lease::{ClaimedSlot, Handle};

/// The slots of a fixed arena by state, or the smallest blocks of a buddy arena: each is counted
/// once.
///
/// From an arena ([`FixedArena::slot_states`], [`BuddyArena::slot_states`]), which does not know
/// what rings do with its memory, `published` and `in_flight` are zero and those slots are among
/// `held` and `frozen`. `Driver::slot_states` tells them apart for the rings and operations of its
/// own.
///
/// **How exact this is.** While nothing moves, all numbers are exact. While other threads move
/// slots meanwhile, each slot of a fixed arena is still counted once, so that the numbers add up to
/// [`total`](Self::total) always: as free or not as of one instant, within the call, of the 32
/// slots that its word of the books holds; and if not free, by what its owner had last said of it
/// when the walk came by. A slot that is freed and claimed again in between may be counted by what
/// its new owner does. In a buddy arena a block that moves from one size to another during the walk
/// may be met twice or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SlotStates {
    /// Nobody has them.
    pub free: usize,
    /// With the program, as buffers that it may write; or kept for a waiting claimant that was
    /// woken.
    pub held: usize,
    /// In a driver's buffer rings: the kernel may receive into them. A slot of an incremental ring
    /// may hold messages besides.
    pub published: usize,
    /// In reads, writes and sends of a driver that the kernel has, frozen or not.
    pub in_flight: usize,
    /// With the program, as [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes): nobody
    /// may write them.
    pub frozen: usize,
    /// Lost for good.
    pub quarantined: usize,
}

/// What a driver knows of slots that somebody owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRing {
    Published,
    InFlight,
}

impl SlotStates {
    /// All of them together: the slots, or smallest blocks, of the arena.
    pub fn total(&self) -> usize {
        self.free + self.held + self.published + self.in_flight + self.frozen + self.quarantined
    }

    /// Walks over the arena of `handle`; `on_ring` tells what a ring does with slots that are
    /// neither free nor lost.
    pub(crate) fn of(
        handle: &Handle,
        mut on_ring: impl FnMut(&ClaimedSlot) -> Option<OnRing>,
    ) -> SlotStates {
        let mut states = SlotStates::default();
        let mut owned_units = 0;
        handle.for_each_claimed(|owned| {
            let units = owned.min_blocks as usize;
            owned_units += units;
            let state = match on_ring(&owned) {
                _ if owned.quarantined => &mut states.quarantined,
                Some(OnRing::Published) => &mut states.published,
                Some(OnRing::InFlight) => &mut states.in_flight,
                None if owned.frozen => &mut states.frozen,
                None => &mut states.held,
            };
            *state += units;
        });
        states.free = handle.index_count().saturating_sub(owned_units);
        states
    }
}

impl FixedArena {
    /// The slots by state. Walks over all of them: for monitoring, not for hot paths.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # use uring_arena::FixedArena;
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
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
}

impl BuddyArena {
    /// The smallest blocks by state. Walks over the books: for monitoring, not for hot paths.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let arena = BuddyArena::builder(BuddyGeometry::exact(bytes(4096), bytes(512))?).build()?;
    /// let block = arena.allocate(bytes(1000))?;
    /// let states = arena.slot_states();
    /// assert_eq!((states.free, states.held), (6, 2));
    /// # drop(block);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_states(&self) -> SlotStates {
        SlotStates::of(self.handle(), |_| None)
    }
}
