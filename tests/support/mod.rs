//! Helpers that the test binaries share.
#![allow(dead_code, reason = "each test binary uses its part")]

#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod driver;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod ring;
pub mod runtimes;
#[cfg(target_os = "linux")]
pub mod seccomp;

use std::num::NonZeroUsize;

use uring_arena::{BuddyArena, FixedArena, SlotStates};

pub fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// The counts that prove an arena whole again, whatever its allocator.
#[derive(Debug)]
pub struct Counts {
    claims: u64,
    frees: u64,
    bytes_live: usize,
    quarantined: u64,
    states: SlotStates,
    slots: usize,
}

/// An arena whose slots can be counted.
pub trait Countable {
    fn counts(&self) -> Counts;

    /// Claims every byte at once and frees it again.
    ///
    /// Returns `false` if some of the memory was refused.
    fn can_claim_all(&self) -> bool;
}

impl Countable for FixedArena {
    fn counts(&self) -> Counts {
        let metrics = self.metrics();
        Counts {
            claims: metrics.allocations_ok,
            frees: metrics.frees,
            bytes_live: metrics.bytes_live,
            quarantined: metrics.quarantined,
            states: self.slot_states(),
            slots: self.slot_count(),
        }
    }

    fn can_claim_all(&self) -> bool {
        let mut all = Vec::new();
        self.allocate_many(self.slot_count(), |buffer| all.push(buffer)) == self.slot_count()
    }
}

impl Countable for BuddyArena {
    fn counts(&self) -> Counts {
        let metrics = self.metrics();
        Counts {
            claims: metrics.allocations_ok,
            frees: metrics.frees,
            bytes_live: metrics.bytes_live,
            quarantined: metrics.quarantined,
            states: self.slot_states(),
            slots: self.total_size() / self.min_block_size(),
        }
    }

    fn can_claim_all(&self) -> bool {
        self.metrics().largest_free_block == self.total_size()
            && self.allocate(nz(self.total_size())).is_ok()
    }
}

#[cfg(feature = "async-alloc")]
impl<W: uring_arena::Waiter> Countable for uring_arena::AsyncFixedArena<W> {
    fn counts(&self) -> Counts {
        FixedArena::counts(self)
    }

    fn can_claim_all(&self) -> bool {
        FixedArena::can_claim_all(self)
    }
}

#[cfg(feature = "async-alloc")]
impl<W: uring_arena::BuddyWaiter> Countable for uring_arena::AsyncBuddyArena<W> {
    fn counts(&self) -> Counts {
        BuddyArena::counts(self)
    }

    fn can_claim_all(&self) -> bool {
        BuddyArena::can_claim_all(self)
    }
}

/// Fails unless every slot is free: by the counters, by the states, and by claiming all of them.
#[track_caller]
pub fn assert_all_free(arena: &impl Countable) {
    let counts = arena.counts();
    assert_eq!(counts.claims, counts.frees, "{counts:?}");
    assert_eq!((counts.bytes_live, counts.quarantined), (0, 0), "{counts:?}");
    let all = (counts.slots, counts.slots);
    assert_eq!((counts.states.free, counts.states.total()), all, "{counts:?}");
    assert!(arena.can_claim_all(), "free by the counts, and yet not to be claimed: {counts:?}");
}
