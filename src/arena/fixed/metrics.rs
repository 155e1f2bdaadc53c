//! The numbers of a fixed arena.

use super::arena::FixedArena;
use crate::arena::slot_states::SlotStates;
use crate::sync::Ordering;

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
}

impl FixedArena {
    /// Takes a snapshot of the counters.
    ///
    /// The call walks over all slots: it is for monitoring, not for hot paths. The example of
    /// [`FixedArenaMetrics`] shows it.
    pub fn metrics(&self) -> FixedArenaMetrics {
        let handle = self.handle();
        let live = handle.allocator.slots().live();
        let allocations_ok = handle.claims();
        // Relaxed: counters.
        FixedArenaMetrics {
            allocations_ok,
            allocations_failed: handle.waiters.refusals(),
            frees: allocations_ok.saturating_sub(live as u64),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: live * handle.slot_bytes,
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
            copied_bytes: handle.copied.live(),
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
}
