//! The owner's side of a batch: claims, refills and the end.
//!
//! # Safety
//!
//! Unsafe here: reaching the batch through its pointer until the end, and making leases of its idle
//! slots, which are claimed and have none.
#![allow(unsafe_code)]

use std::array;
use std::cell::Cell;
use std::ptr::NonNull;

use super::batch::{self, Batch};
use super::handle::Handle;
use super::header::Header;
use super::holder_table::Place;
use super::lease::Lease;
use crate::sync::Ordering;

/// The largest number of slots in a batch.
pub(crate) const BATCH_MAX: usize = 32;

/// A slot of a batch.
#[derive(Clone, Copy)]
struct Member {
    header: NonNull<Header>,
    start: NonNull<u8>,
}

/// A batch of slots of one fixed arena, as its owner has it.
///
/// It holds no handle. A caller that claims through it has one.
// Invariants:
// 1. `shared` is live: it has not ended.
// 2. For each bit of `members` the slot in `slots` is claimed, and its header line names `shared`
//    and the bit's number. It has a lease, or is idle, or was returned.
pub(crate) struct SlotBatch {
    shared: NonNull<Batch>,
    members: Cell<u32>,
    slots: Box<[Cell<Member>; BATCH_MAX]>,
}

impl SlotBatch {
    /// Makes a batch without slots, owned by this thread.
    pub(crate) fn new() -> SlotBatch {
        let nothing = Member { header: NonNull::dangling(), start: NonNull::dangling() };
        SlotBatch {
            shared: Batch::create(),
            members: Cell::new(0),
            slots: Box::new(array::from_fn(|_| Cell::new(nothing))),
        }
    }

    #[inline]
    fn shared(&self) -> &Batch {
        // SAFETY: live until the end (invariant 1), and all atomics.
        unsafe { self.shared.as_ref() }
    }

    /// Claims an idle slot, and returns its lease and its first byte.
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn claim(&self, handle: &Handle, place: Place) -> Option<(Lease, NonNull<u8>)> {
        let shared = self.shared();
        // Relaxed: only this thread touches `idle`.
        let mut idle = shared.idle.load(Ordering::Relaxed);
        if idle == 0 {
            idle = self.take_returned()?;
        }
        let number = idle.trailing_zeros();
        shared.idle.store(idle & (idle - 1), Ordering::Relaxed);
        let Member { header, start } = self.slots[number as usize % BATCH_MAX].get();
        // SAFETY: an idle slot is claimed and has no lease, and is idle no more.
        let lease = unsafe { Lease::from_raw(header) };
        lease.header().set_order(0);
        Some((handle.count_batch_claim(lease, place), start))
    }

    /// Takes the slots that were freed elsewhere, unless there are none.
    #[cold]
    fn take_returned(&self) -> Option<u32> {
        let returned = self.shared().take_returned();
        (returned != 0).then_some(returned)
    }

    /// Claims slots of the arena until the batch has `wanted`. Returns the number of new ones.
    ///
    /// That there are less proves nothing.
    pub(crate) fn refill(&self, handle: &Handle, wanted: usize, place: Place) -> usize {
        let left = wanted.min(BATCH_MAX).saturating_sub(self.members.get().count_ones() as usize);
        handle.claim_slots(left, place, |lease, start, _| self.add(lease, start))
    }

    /// Adds a slot to a batch that has room for it: as an idle one.
    fn add(&self, lease: Lease, start: NonNull<u8>) {
        let number = self.members.get().trailing_ones();
        let line = lease.line().expect("a fixed arena has slots");
        line.set_batch(self.shared.cast(), number);
        let bit = 1 << number;
        self.slots[number as usize].set(Member { header: lease.into_raw(), start });
        self.members.set(self.members.get() | bit);
        self.set_idle(self.shared().idle.load(Ordering::Relaxed) | bit);
    }

    fn set_idle(&self, idle: u32) {
        // Relaxed: only this thread touches `idle`.
        self.shared().idle.store(idle, Ordering::Relaxed);
    }

    /// Returns the number of slots of the batch, and of those among them without a lease.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let shared = self.shared();
        // Relaxed: counts.
        let idle = shared.idle.load(Ordering::Relaxed) | shared.returned();
        (self.members.get().count_ones() as usize, idle.count_ones() as usize)
    }

    /// Gives the idle slots back to the arena, and so to those who wait. Returns their number.
    pub(crate) fn give_back(&self) -> usize {
        let returned = self.take_returned().unwrap_or(0);
        let idle = self.shared().idle.load(Ordering::Relaxed) | returned;
        // First of all: a free may run foreign code, which may come back to this batch.
        self.set_idle(0);
        self.members.set(self.members.get() & !idle);
        drop(self.leases(idle));
        idle.count_ones() as usize
    }

    /// Makes ordinary leases of idle slots that were taken out of the batch. A panic of one's drop
    /// leaves the others to be dropped.
    fn leases(&self, idle: u32) -> [Option<Lease>; BATCH_MAX] {
        array::from_fn(|number| {
            if idle & (1 << number) == 0 {
                return None;
            }
            // SAFETY: claimed and without a lease, as every idle slot.
            let lease = unsafe { Lease::from_raw(self.slots[number].get().header) };
            lease.leave_batch();
            Some(lease)
        })
    }
}

impl Drop for SlotBatch {
    fn drop(&mut self) {
        // SAFETY: this is the owner, and the batch is not used again.
        let idle = unsafe { batch::end(self.shared, self.members.get()) };
        drop(self.leases(idle));
    }
}
