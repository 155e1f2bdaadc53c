//! A batch: slots that one thread claimed beforehand, and claims and frees without locked
//! instructions.
//!
//! | where a slot of the batch is freed | by                                                     |
//! |------------------------------------|--------------------------------------------------------|
//! | on the owner's thread              | plain accesses: the slot is idle again                 |
//! | elsewhere                          | one atomic in the batch, at which the owner looks later |
//! | anywhere, after the batch's end    | one atomic in the batch, and the ordinary free         |
//!
//! For the allocator the slots of a batch are claimed, idle or not. The header line of each names
//! the batch in the place of the slot's word. The batch begins with a *gate*: a word that looks as
//! if somebody waited. So the fast path of a free asks nothing more than before, and does not pass.
//!
//! # Safety
//!
//! Unsafe here: the batch is shared with the leases of its slots by a raw pointer, and freed by the
//! last who needs it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::slots::GATE;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, own_thread_number};

/// The owner of a batch that has ended.
const NOBODY: usize = usize::MAX;

/// A flag of `returned`: the batch has ended, and what is freed from now on is the arena's.
const ENDED: u64 = 1 << 32;

/// The part of a batch that the leases of its slots reach.
// Invariants:
// 1. `owner` is the number of the thread that has the `SlotBatch`, which is not Send, or `NOBODY`.
// 2. A bit of `idle` is set only while its slot is the batch's and has no lease. Only the owner's
//    thread touches it.
// 3. The batch lives until it has ended and all 32 bits of `returned` are set. Each bit is set once
//    after the last time that the owner took it: by the end, for a slot that is idle or not the
//    batch's, or by the free of the slot.
#[repr(C)]
pub(super) struct Batch {
    /// The word that header lines name, at the start of the batch.
    gate: AtomicU64,
    owner: AtomicUsize,
    pub(super) idle: AtomicU32,
    /// The slots that were freed elsewhere, and [`ENDED`]. On a line of its own.
    returned: CachePadded<AtomicU64>,
}

impl Batch {
    /// Makes a batch without slots, owned by this thread, on the heap.
    pub(super) fn create() -> NonNull<Batch> {
        let batch = Box::new(Batch {
            gate: AtomicU64::new(GATE),
            owner: AtomicUsize::new(own_thread_number().unwrap_or(NOBODY)),
            idle: AtomicU32::new(0),
            returned: CachePadded::new(AtomicU64::new(0)),
        });
        // SAFETY: a box is never null.
        unsafe { NonNull::new_unchecked(Box::into_raw(batch)) }
    }

    /// Takes the slots that were freed elsewhere.
    pub(super) fn take_returned(&self) -> u32 {
        // AcqRel. Acquire pairs with the Release of the frees: the next owners of the slots see
        // what the last ones did. Release keeps the chain whole for the end of the batch.
        self.returned.swap(0, Ordering::AcqRel) as u32
    }

    /// Returns the slots that were freed elsewhere.
    pub(super) fn returned(&self) -> u32 {
        // Relaxed: for a count.
        self.returned.load(Ordering::Relaxed) as u32
    }
}

/// Ends a batch whose slots are those of `members`. Returns the slots that have no lease: they are
/// the caller's to free. The batch may be gone.
///
/// # Safety
///
/// The caller is the owner of the batch, which is live, and does not use it again.
pub(super) unsafe fn end(batch: NonNull<Batch>, members: u32) -> u32 {
    // SAFETY: live (the caller's promise), and all atomics.
    let shared = unsafe { batch.as_ref() };
    // Relaxed: other threads are not the owner anyway; from now on this one is not either.
    shared.owner.store(NOBODY, Ordering::Relaxed);
    let idle = shared.idle.load(Ordering::Relaxed);
    let done = ENDED | u64::from(idle | !members);
    // AcqRel. Acquire: sees what the frees before did. Release: the frees behind it see the end,
    // and the last of them frees the batch.
    let before = shared.returned.fetch_or(done, Ordering::AcqRel);
    if is_over(before | done) {
        // SAFETY: no slot of the batch has a lease, so nobody else reaches it (invariant 3).
        drop(unsafe { Box::from_raw(batch.as_ptr()) });
    }
    (idle | before as u32) & members
}

/// Returns `true` if a batch whose `returned` has this value, and has ended, has no lease.
fn is_over(returned: u64) -> bool {
    returned as u32 == u32::MAX
}

/// Frees slot `number` of a batch. Returns `false` if the batch has ended: then the slot is still
/// claimed, and the caller's to free.
///
/// The batch may be gone afterwards.
///
/// # Safety
///
/// The caller owns the lease of the slot, alone, and its header line names this batch and number.
pub(super) unsafe fn free(batch: NonNull<Batch>, number: u32) -> bool {
    // SAFETY: the bit of the slot is not set, so the batch is live (invariant 3); all atomics.
    let shared = unsafe { batch.as_ref() };
    let bit = 1u32 << number;
    // Relaxed: only this thread could make the two equal, or unequal.
    if Some(shared.owner.load(Ordering::Relaxed)) == own_thread_number() {
        let idle = shared.idle.load(Ordering::Relaxed);
        debug_assert_eq!(idle & bit, 0, "slot freed twice");
        shared.idle.store(idle | bit, Ordering::Relaxed);
        return true;
    }
    // AcqRel. Release: what this owner did comes before the next claim of the slot. Acquire: the
    // last free of an ended batch comes behind all others.
    let before = shared.returned.fetch_or(bit.into(), Ordering::AcqRel);
    if before & ENDED == 0 {
        return true;
    }
    if is_over(before | u64::from(bit)) {
        // SAFETY: ended, and this was the last lease (invariant 3). Only one free sets the last
        // bit.
        drop(unsafe { Box::from_raw(batch.as_ptr()) });
    }
    false
}
