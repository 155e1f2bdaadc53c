//! An allocator with its waiters, used as the leases of an arena use them: for tests and models.

use std::task::{Poll, Waker};

use super::{WaiterId, Waiters};
use crate::slots::{Allocator, BuddyAllocator, FreeOutcome, SlotBitmap};

pub(super) struct Pool {
    pub(super) allocator: Allocator,
    waiters: Waiters,
}

impl Pool {
    pub(super) fn of_slots(count: usize) -> Pool {
        Pool::new(Allocator::Slots(SlotBitmap::new(count).unwrap()))
    }

    pub(super) fn of_blocks(max_order: u32) -> Pool {
        Pool::new(Allocator::Blocks(BuddyAllocator::new(max_order).unwrap()))
    }

    fn new(allocator: Allocator) -> Pool {
        let waiters = Waiters::new(&allocator, None);
        Pool { allocator, waiters }
    }

    pub(super) fn claim(&self, order: u32) -> Option<u32> {
        match &self.allocator {
            Allocator::Slots(bitmap) => bitmap.claim(),
            Allocator::Blocks(buddy) => buddy.claim(order),
        }
    }

    /// Frees a claim. Returns `true` if that took the way past the waiters.
    pub(super) fn free(&self, first: u32, order: u32) -> bool {
        let outcome = match &self.allocator {
            Allocator::Slots(bitmap) => {
                let (word, free) = bitmap.prepare_free(first);
                free.free(word)
            }
            Allocator::Blocks(buddy) => {
                let (word, free) = buddy.prepare_free(first, order);
                free.free(word)
            }
        };
        let has_waiters = outcome == FreeOutcome::HasWaiters;
        if has_waiters {
            self.waiters.release(&self.allocator, first, order, &|_, _| {});
        }
        has_waiters
    }

    pub(super) fn join(&self, order: u32) -> WaiterId {
        self.waiters.join(&self.allocator, order)
    }

    pub(super) fn poll(&self, id: WaiterId, waker: &Waker) -> Poll<u32> {
        self.waiters.poll(id, waker)
    }

    pub(super) fn leave(&self, id: WaiterId) {
        self.waiters.leave(&self.allocator, id, &|_, _| {});
    }
}
