//! Snapshots of an arena's counters.

use super::FixedArena;
use crate::lease::Handle;
use crate::sync::Ordering;

/// Plain numbers of a [`FixedArena`], exact when no other thread is claiming or freeing meanwhile.
///
/// At rest `allocations_ok == frees` and `bytes_live == 0`. A spill frees its slot, and so counts
/// one free.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(64).unwrap());
/// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
/// let buffer = arena.allocate()?;
/// let metrics = arena.metrics();
/// assert_eq!((metrics.allocations_ok, metrics.frees, metrics.bytes_live), (1, 0, 64));
/// # drop(buffer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FixedArenaMetrics {
    /// Claims that were served.
    pub allocations_ok: u64,
    /// Claims that were refused because no slot was free.
    pub allocations_failed: u64,
    /// Slots that came back.
    pub frees: u64,
    /// Buffers frozen without leaving their slot.
    pub frozen: u64,
    /// Buffers that outgrew their slot and moved to the heap.
    pub spills: u64,
    /// Bytes of all slots.
    pub bytes_reserved: usize,
    /// Bytes of the slots that have an owner now, whole slots counted.
    pub bytes_live: usize,
    /// Slots that are lost for good, because the kernel may still write to them.
    pub quarantined: u64,
}

impl FixedArena {
    /// A snapshot of the counters. Walks over all slots: for monitoring, not for hot paths.
    pub fn metrics(&self) -> FixedArenaMetrics {
        let handle: &Handle = self.handle();
        let live = handle.allocator.slots().live();
        let allocations_ok = handle.claims();
        // Relaxed: counters.
        FixedArenaMetrics {
            allocations_ok,
            allocations_failed: handle.counters.failed.load(Ordering::Relaxed),
            frees: allocations_ok.saturating_sub(live as u64),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: live * handle.slot_bytes,
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
        }
    }
}
