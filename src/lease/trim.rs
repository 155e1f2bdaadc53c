//! Giving the pages of free slots back to the system; and the registrations that forbid it.
//!
//! | step | a trim                                   | a registration                       |
//! |------|------------------------------------------|--------------------------------------|
//! | 1    | claims free slots that lie side by side  |                                      |
//! | 2    | takes the lock; stops if one is counted  | takes the lock, and counts itself    |
//! | 3    | gives the whole pages in them back       | registers                            |
//! | 4    | releases the lock; frees the slots       | is not counted any more at its end   |
//!
//! A page that the kernel has pinned parts from the page that the program sees, once it was given
//! back. So the two exclude each other, for the time of one system call. Nobody else has the bytes
//! meanwhile: the slots are claimed.
//!
//! # Safety
//!
//! Unsafe here: giving back pages of slots that this call has claimed.
#![allow(unsafe_code)]

use std::fmt;

use super::handle::Handle;
use crate::slots::{Allocator, BuddyAllocator, FreeOutcome, SLOTS_PER_WORD, SlotBitmap, SlotRun};
use crate::sync::{Ordering, contain};

/// `EIO`, for an error without a number. Systems agree on it.
const EIO: i32 = 5;

/// The largest block of a buddy arena that is claimed for a trim, in bytes. Others see it as in use
/// meanwhile.
const BLOCK_BYTES_MAX: usize = 2 << 20;

/// The report of a [trim](crate::FixedArena::trim).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a trim may have done nothing, and says why"]
pub struct TrimReport {
    /// The bytes of the pages that were given back, present or not.
    pub bytes: usize,
    /// The reason why no more was given back, if there is one.
    pub obstacle: Option<TrimObstacle>,
}

/// The reason why a [trim](crate::FixedArena::trim) gives no page back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrimObstacle {
    /// The kernel has the memory: so many registrations exist, or one was lost. Unregister first.
    Registered {
        /// The number of registrations.
        registrations: usize,
    },
    /// So many slots are quarantined: the kernel may still use their pages.
    Quarantined {
        /// The number of slots.
        slots: u64,
    },
    /// The memory is no private mapping of this library: it is the caller's, or the heap's. Or this
    /// is a forked child.
    NotMapped,
    /// The system refused: the pages are locked, or are huge pages before Linux 5.18.
    Refused {
        /// The error number.
        errno: i32,
    },
}

impl fmt::Display for TrimObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrimObstacle::Registered { registrations } => write!(
                f,
                "the arena is registered ({registrations} times), so that its pages are pinned: \
                 unregister it before"
            ),
            TrimObstacle::Quarantined { slots } => write!(
                f,
                "{slots} slots are quarantined, and the kernel may still use their pages: only a \
                 new arena gives memory back"
            ),
            TrimObstacle::NotMapped => f.write_str(
                "the memory is the caller's, the heap's, or a parent process's: only pages of a \
                 private mapping are given back; use `Backing::Anonymous`",
            ),
            TrimObstacle::Refused { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "the system keeps the pages: {error}; unlock them, or use ordinary pages")
            }
        }
    }
}

/// The way to trim an arena.
pub(crate) struct Trim<'a>(pub(crate) &'a Handle);

impl Trim<'_> {
    /// Counts a registration that is about to be made. Waits for a page that is being given back.
    pub(crate) fn pin(&self) {
        *self.0.pins.lock() += 1;
    }

    /// Counts off a registration that the kernel has given up. One that is lost stays counted.
    pub(crate) fn unpin(&self) {
        *self.0.pins.lock() -= 1;
    }

    /// Gives the whole pages of free slots, or blocks, back to the system.
    pub(crate) fn run(&self) -> TrimReport {
        let mut report = TrimReport { bytes: 0, obstacle: self.obstacle(*self.0.pins.lock()) };
        if report.obstacle.is_none() {
            let done = match &self.0.allocator {
                Allocator::Slots(bitmap) => self.trim_slots(bitmap, &mut report.bytes),
                Allocator::Blocks(buddy) => self.trim_blocks(buddy, &mut report.bytes),
            };
            report.obstacle = done.err();
        }
        report
    }

    fn obstacle(&self, registrations: usize) -> Option<TrimObstacle> {
        // Relaxed: whoever quarantines a slot has it, so it is not one that is claimed here.
        let slots = self.0.counters.quarantined.load(Ordering::Relaxed);
        if registrations > 0 {
            Some(TrimObstacle::Registered { registrations })
        } else if slots > 0 {
            Some(TrimObstacle::Quarantined { slots })
        } else {
            (!self.0.region.can_discard()).then_some(TrimObstacle::NotMapped)
        }
    }

    fn trim_slots(&self, bitmap: &SlotBitmap, bytes: &mut usize) -> Result<(), TrimObstacle> {
        for word in 0..bitmap.word_count() {
            let mut bit = 0;
            while let Some(run) = bitmap.claim_free_run(word, bit) {
                bit = run.first % SLOTS_PER_WORD as u32 + run.count;
                let claimed = ClaimedRun { handle: self.0, bitmap, run };
                *bytes += self.discard(run.first, run.count as usize)?;
                drop(claimed);
            }
        }
        Ok(())
    }

    fn trim_blocks(&self, buddy: &BuddyAllocator, bytes: &mut usize) -> Result<(), TrimObstacle> {
        let largest = (BLOCK_BYTES_MAX.max(self.0.region.page_bytes()) / self.0.slot_bytes).max(1);
        let order = largest.ilog2().min(buddy.max_order());
        for first in (0..buddy.min_block_count()).step_by(1 << order) {
            self.trim_block(buddy, first as u32, order, bytes)?;
        }
        Ok(())
    }

    /// Trims a block if it is free as a whole, and else what is free in it.
    fn trim_block(
        &self,
        buddy: &BuddyAllocator,
        first: u32,
        order: u32,
        bytes: &mut usize,
    ) -> Result<(), TrimObstacle> {
        if self.0.slot_bytes << order < self.0.region.page_bytes() {
            return Ok(());
        }
        if buddy.claim_at(first, order) {
            self.0.record_order(first, order);
            let claimed = ClaimedBlock { handle: self.0, buddy, first, order };
            *bytes += self.discard(first, 1 << order)?;
            drop(claimed);
        } else if order > 0 {
            self.trim_block(buddy, first, order - 1, bytes)?;
            self.trim_block(buddy, first + (1 << (order - 1)), order - 1, bytes)?;
        }
        Ok(())
    }

    /// Gives back the whole pages in slots, or smallest blocks, that the caller has claimed and
    /// that have no lease.
    fn discard(&self, first: u32, count: usize) -> Result<usize, TrimObstacle> {
        let pins = self.0.pins.lock();
        if let Some(obstacle) = self.obstacle(*pins) {
            return Err(obstacle);
        }
        #[cfg(uring_arena_loom)]
        for index in first..first + count as u32 {
            // Stands for the bytes, which nobody else may use now.
            self.0.with_bytes_of(index, || ());
        }
        let offset = first as usize * self.0.slot_bytes;
        // SAFETY: the slots are claimed by this call and have no lease: nobody else uses the bytes,
        // and nobody reads them later without having written them. No registration exists, or
        // begins before the lock is released.
        let discarded = unsafe { self.0.region.discard(offset, count * self.0.slot_bytes) };
        discarded
            .map_err(|error| TrimObstacle::Refused { errno: error.raw_os_error().unwrap_or(EIO) })
    }
}

/// A run of slots that is claimed for a trim. The drop frees them, or grants them to waiters.
struct ClaimedRun<'a> {
    handle: &'a Handle,
    bitmap: &'a SlotBitmap,
    run: SlotRun,
}

impl Drop for ClaimedRun<'_> {
    fn drop(&mut self) {
        let SlotRun { first, count } = self.run;
        let (word, free) = self.bitmap.prepare_free(first);
        if free.of_run(count).free(word) == FreeOutcome::HasWaiters {
            (first..first + count).for_each(|slot| release(self.handle, slot, 0));
        }
    }
}

/// A block that is claimed for a trim. The drop frees it, or grants it to waiters.
struct ClaimedBlock<'a> {
    handle: &'a Handle,
    buddy: &'a BuddyAllocator,
    first: u32,
    order: u32,
}

impl Drop for ClaimedBlock<'_> {
    fn drop(&mut self) {
        let (first, order) = (self.first, self.order);
        let (word, free) = self.buddy.prepare_free(first, order, order);
        if free.free(word) == FreeOutcome::HasWaiters {
            release(self.handle, first, order);
        }
    }
}

/// Gives a claim to those who wait. Their wakers may panic, which is no matter of the trim's.
fn release(handle: &Handle, first: u32, order: u32) {
    let record_order = |first, order| handle.record_order(first, order);
    contain("the waker of a claim that waits", || {
        handle.waiters.release(&handle.allocator, first, order, &record_order);
    });
}
