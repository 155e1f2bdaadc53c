//! The counts of what received messages hold of an arena: copies of short ones on the heap, and the
//! slots of those that nobody has asked for yet.

#[cfg(any(
    all(feature = "tokio", feature = "io-uring", target_os = "linux"),
    all(test, uring_arena_loom)
))]
use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicUsize, Ordering};

/// The bytes of copies that live, of one arena.
#[derive(Debug, Default)]
pub(crate) struct CopiedBytes(AtomicUsize);

impl CopiedBytes {
    /// Returns the number of bytes that live.
    pub(crate) fn live(&self) -> usize {
        // Relaxed, as all here: a number, which orders nothing.
        self.0.load(Ordering::Relaxed)
    }

    /// Counts a copy of `bytes`. Returns `None`, and counts nothing, if more than `max` bytes would
    /// live then.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize, max: usize) -> Option<CopyCharge> {
        let mut live = self.live();
        loop {
            let after = live.checked_add(bytes).filter(|&after| after <= max)?;
            match self.0.compare_exchange(live, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(CopyCharge { bytes, counted: self.clone() }),
                Err(now) => live = now,
            }
        }
    }
}

/// The count of one copy. Its drop ends it.
#[derive(Debug)]
pub struct CopyCharge {
    bytes: usize,
    counted: Arc<CopiedBytes>,
}

impl Drop for CopyCharge {
    fn drop(&mut self) {
        self.counted.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The count of the slots of an arena that hold unread messages.
///
/// A stream may hold as many as half of those that are left. So however many streams nobody reads,
/// some slots are left for those that are read: of 64 slots one stream may hold 21, two 16 each.
///
/// One thread receives, and it alone adds; any thread subtracts. Each side writes a cache line of
/// its own, and the receiver looks at the other one only when its own numbers leave no room.
// Invariants: 1. `added - taken` slots are held, modulo 2⁶⁴. 2. `taken_seen` is a former `taken`,
// or it: `added - taken_seen` is at least what is held. 3. A slot is added before it is taken, and
// in the order of the two threads: so no subtraction is seen before its addition.
#[cfg(any(
    all(feature = "tokio", feature = "io-uring", target_os = "linux"),
    all(test, uring_arena_loom)
))]
pub(crate) struct UnreadSlots {
    slots: usize,
    receiver: CachePadded<Receiver>,
    taken: CachePadded<AtomicUsize>,
}

/// The receiver's side.
#[cfg(any(
    all(feature = "tokio", feature = "io-uring", target_os = "linux"),
    all(test, uring_arena_loom)
))]
struct Receiver {
    added: AtomicUsize,
    taken_seen: AtomicUsize,
}

#[cfg(any(
    all(feature = "tokio", feature = "io-uring", target_os = "linux"),
    all(test, uring_arena_loom)
))]
impl UnreadSlots {
    /// Makes the count of an arena with so many slots, none of which is held.
    pub(crate) fn new(slots: usize) -> UnreadSlots {
        let receiver = Receiver { added: AtomicUsize::new(0), taken_seen: AtomicUsize::new(0) };
        let taken = CachePadded::new(AtomicUsize::new(0));
        UnreadSlots { slots, receiver: CachePadded::new(receiver), taken }
    }

    /// Returns whether a stream may hold `wanted` slots in all. For the receiver.
    pub(crate) fn allows(&self, wanted: usize) -> bool {
        // Relaxed, as all here: numbers, which order nothing.
        let added = self.receiver.added.load(Ordering::Relaxed);
        let limit = |taken| self.slots.saturating_sub(added.wrapping_sub(taken)) / 2;
        if wanted <= limit(self.receiver.taken_seen.load(Ordering::Relaxed)) {
            return true;
        }
        let taken = self.taken.load(Ordering::Relaxed);
        self.receiver.taken_seen.store(taken, Ordering::Relaxed);
        wanted <= limit(taken)
    }

    /// Counts slots that a stream holds from now on. For the receiver.
    pub(crate) fn add(&self, slots: usize) {
        let added = self.receiver.added.load(Ordering::Relaxed);
        // Stored: nobody else writes the number.
        self.receiver.added.store(added.wrapping_add(slots), Ordering::Relaxed);
    }

    /// Counts slots that a stream does not hold any more.
    pub(crate) fn sub(&self, slots: usize) {
        self.taken.fetch_add(slots, Ordering::Relaxed);
    }
}
