//! Waiting for memory: the queue behind its lock, and the wakes.
//!
//! | step | a claimant that found nothing          | a free of a word with `WAITERS`  |
//! |------|----------------------------------------|----------------------------------|
//! | 1    | takes the lock, and sets the flags     | opens a handle of the arena      |
//! | 2    | looks once more, and joins the queue   | releases its claim to the queue  |
//! | 3    | polls for a grant, and waits           | wakes the waiters that it served |
//!
//! While somebody waits, a slot that is freed does not become free: it is granted to the oldest
//! waiter. So nobody overtakes a waiter, nobody is woken for nothing, and a waiter that leaves
//! hands on the slot that it was granted.
//!
//! No wake is lost. The look of a claimant happens under the lock, and so does a free that meets
//! the flag. If the free came first, the look sees the memory, or the free of its next owner comes
//! later. If the claimant came first, the free sees the waiter. A free that did not meet the flag
//! came before the flag in the order of the word, so the look sees it too.
//!
//! Frees stand still while a claimant looks. So one pass over the allocator is exact, and a refused
//! claim (`claim_still`) needs no more, however often others claim and free.
//!
//! While nobody waits nothing here is touched.

use std::task::{Poll, Waker};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::queue::{Polled, RecordOrder, Visit, WaitCounts, WaitQueue, WaiterId, WatchId};
use super::wakes::{Panicked, WakeList};
use crate::slots::Allocator;
use crate::sync::{AtomicU64, Mutex, Ordering, fence};

/// A callback after frees that make memory free: the wake policy of a user.
pub(crate) struct OnFree {
    /// Called with the order of the block.
    pub(crate) call: Box<dyn Fn(u32) + Send + Sync>,
    /// `true` if frees need not call before [`Waiters::call_on_every_free`]: until then nobody
    /// listens to the callback.
    pub(crate) is_on_demand: bool,
}

/// The waiters of one arena.
///
/// The caller of a method that takes `allocator` holds a handle of the arena, and passes the
/// arena's allocator.
pub(crate) struct Waiters {
    queue: Mutex<WaitQueue>,
    on_free: Option<OnFree>,
    /// The number of claims that were refused, and [`HEARD`]. On a line of its own: refusals write
    /// it.
    refusals: CachePadded<AtomicU64>,
}

/// The flag beside the count of refusals: a watch hears of the next one.
//
// Count and flag are one word. A refusal that comes after the flag was set sees it; one that came
// before is in the count that the watcher reads with the same access.
const HEARD: u64 = 1 << 63;

/// The signs that claimants find too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pressure {
    /// Somebody waits now.
    pub(crate) is_waited_for: bool,
    /// The number of claims that were refused so far.
    pub(crate) refusals: u64,
}

impl Waiters {
    /// Makes a queue without waiters.
    ///
    /// With `on_free` every free of the arena visits the queue, as nobody knows when the owner of
    /// the callback has waiters. A callback on demand does so later.
    pub(crate) fn new(allocator: &Allocator, on_free: Option<OnFree>) -> Waiters {
        let queue = Mutex::new(WaitQueue::new(allocator));
        let refusals = CachePadded::new(AtomicU64::new(0));
        let waiters = Waiters { queue, on_free, refusals };
        if waiters.on_free.as_ref().is_some_and(|on_free| !on_free.is_on_demand) {
            waiters.call_on_every_free(allocator);
        }
        waiters
    }

    /// Calls the callback after every free from now on.
    pub(crate) fn call_on_every_free(&self, allocator: &Allocator) {
        self.queue.lock().keep_flags(allocator);
    }

    /// Adds a waiter for a block of `order` behind all others.
    ///
    /// The caller looks for free memory after this, and polls only if there is none.
    pub(crate) fn join(&self, allocator: &Allocator, order: u32) -> WaiterId {
        self.queue.lock().join(allocator, order)
    }

    /// Takes the slot that was granted to `id`, or has `waker` called when one is.
    ///
    /// Also returns a waker that is not needed any more. The caller drops it when the slot has an
    /// owner, because the drop may panic.
    pub(crate) fn poll(&self, id: WaiterId, waker: &Waker) -> (Poll<u32>, Option<Waker>) {
        let polled = self.queue.lock().poll(id, waker);
        match polled {
            Polled::Granted(slot) => (Poll::Ready(slot), None),
            Polled::Waits => (Poll::Pending, None),
            Polled::NeedsWaker => {
                // Cloned, and dropped, outside of the lock: a waker may run anything.
                let waker = waker.clone();
                let mut queue = self.queue.lock();
                let polled = queue.poll_with(id, waker);
                let has_watches = queue.has_watches();
                drop(queue);
                // The first time that it waits.
                if let (Poll::Pending, None) = polled
                    && has_watches
                {
                    self.call_watches();
                }
                polled
            }
        }
    }

    /// Notes that a claimant begins to wait under a policy of the user's.
    #[cfg_attr(not(feature = "async-alloc"), allow(dead_code, reason = "has the policies"))]
    pub(crate) fn begin_elsewhere(&self) {
        self.queue.lock().begin_elsewhere();
        self.call_watches();
    }

    /// Notes that such a claimant, which waited for as long as `waited`, waits no more.
    #[cfg_attr(not(feature = "async-alloc"), allow(dead_code, reason = "has the policies"))]
    pub(crate) fn end_elsewhere(&self, waited: Duration) {
        self.queue.lock().end_elsewhere(waited);
    }

    /// Returns the waits so far.
    pub(crate) fn counts(&self) -> WaitCounts {
        self.queue.lock().counts()
    }

    /// Calls all watches, because somebody waits.
    #[cold]
    fn call_watches(&self) {
        let mut wakers = WakeList::default();
        {
            let mut queue = self.queue.lock();
            queue.take_watches(&mut wakers);
            // Under the lock, as where it is set. Relaxed: see `HEARD`.
            self.refusals.fetch_and(!HEARD, Ordering::Relaxed);
        }
        run_all(wakers);
    }

    /// Counts a claim that was refused, and tells the watches that hear of it.
    #[inline]
    pub(crate) fn record_refusal(&self) {
        // Relaxed: a counter with a flag (see `HEARD`).
        if self.refusals.fetch_add(1, Ordering::Relaxed) & HEARD != 0 {
            self.tell_of_refusal();
        }
    }

    #[cold]
    fn tell_of_refusal(&self) {
        let mut wakers = WakeList::default();
        {
            let mut queue = self.queue.lock();
            queue.tell_of_refusal(&mut wakers);
            self.refusals.fetch_and(!HEARD, Ordering::Relaxed);
        }
        run_all(wakers);
    }

    /// Returns the number of claims that were refused.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed) & !HEARD
    }

    /// Returns an identity for watches.
    pub(crate) fn new_watch_id(&self) -> WatchId {
        self.queue.lock().new_watch_id()
    }

    /// Has `waker` called once, when somebody begins to wait, or when a claim is refused if
    /// `hears_refusals`. Returns the pressure now: whatever it does not show is called for.
    pub(crate) fn watch(&self, id: WatchId, waker: &Waker, hears_refusals: bool) -> Pressure {
        let waker = waker.clone();
        let mut queue = self.queue.lock();
        let replaced = queue.watch(id, waker, hears_refusals);
        let seen = match hears_refusals {
            true => self.refusals.fetch_or(HEARD, Ordering::Relaxed),
            false => self.refusals.load(Ordering::Relaxed),
        };
        let is_waited_for = queue.is_waited_for();
        drop(queue);
        drop(replaced);
        Pressure { is_waited_for, refusals: seen & !HEARD }
    }

    /// Ends a watch, if it was not called.
    pub(crate) fn unwatch(&self, id: WatchId) {
        let removed = self.queue.lock().unwatch(id);
        drop(removed);
    }

    /// Returns the pressure now.
    pub(crate) fn pressure(&self) -> Pressure {
        let is_waited_for = self.queue.lock().is_waited_for();
        Pressure { is_waited_for, refusals: self.refusals() }
    }

    /// Claims memory while frees stand still. `None` is exact, and takes one pass.
    ///
    /// The flags make every free visit the queue, and the lock keeps it there. So memory that is
    /// claimed when the pass comes by stays claimed until its end.
    pub(crate) fn claim_still(&self, allocator: &Allocator, order: u32) -> Option<u32> {
        let mut queue = self.queue.lock();
        queue.set_flags(allocator);
        allocator.claim_still(order)
    }

    /// Claims memory while frees stand still, or adds a waiter if there is none.
    ///
    /// The claimant is never granted memory beside what it found, not even for a moment.
    pub(crate) fn claim_or_join(&self, allocator: &Allocator, order: u32) -> Result<u32, WaiterId> {
        let mut queue = self.queue.lock();
        queue.set_flags(allocator);
        allocator.claim_still(order).ok_or_else(|| {
            if allocator.has_slots() {
                queue.record_full();
            }
            queue.join(allocator, order)
        })
    }

    /// Removes a waiter. Memory that was granted to it, or reserved for it, goes to the others.
    ///
    /// `record_order` records the order of each block that is granted, beside the block.
    pub(crate) fn leave(&self, allocator: &Allocator, id: WaiterId, record_order: RecordOrder) {
        self.visit(allocator, record_order, |queue, visit| queue.leave(id, visit));
    }

    /// Gives the caller's claim of a slot, or of a block of `order`, to the waiters, or frees it.
    ///
    /// `record_order` is called as by [`leave`](Self::leave).
    pub(crate) fn release(
        &self,
        allocator: &Allocator,
        first: u32,
        order: u32,
        record_order: RecordOrder,
    ) {
        self.visit(allocator, record_order, |queue, visit| queue.release(first, order, visit));
    }

    /// Changes the queue under its lock, and does the rest when the lock is released: wakes the
    /// waiters that were served, and calls the callback for memory that became free.
    ///
    /// Foreign code may panic. The panic goes on when all else is done.
    fn visit(
        &self,
        allocator: &Allocator,
        record_order: RecordOrder,
        change: impl FnOnce(&mut WaitQueue, &mut Visit),
    ) {
        let mut visit = Visit::new(allocator, record_order, self.on_free.is_some());
        change(&mut self.queue.lock(), &mut visit);
        let (left, mut panicked) = (visit.take_left(), Panicked::default());
        visit.wakers.run(&mut panicked);
        if let Some(on_free) = &self.on_free
            && !left.is_empty()
        {
            // The owner of the callback looks at its waiters without our lock. The free comes
            // before that look, as a waiter's look comes after its registration
            // (`arena::wait_policy`).
            fence(Ordering::SeqCst);
            left.into_iter().for_each(|order| panicked.catch(|| (on_free.call)(order)));
        }
        panicked.resume();
    }
}

/// Calls wakers outside of the lock.
fn run_all(wakers: WakeList) {
    let mut panicked = Panicked::default();
    wakers.run(&mut panicked);
    panicked.resume();
}

/// Drops a waker that is not needed any more, and the task with it if it was the last one.
pub(crate) fn drop_waker(waker: Option<Waker>) {
    let (mut wakers, mut panicked) = (WakeList::default(), Panicked::default());
    wakers.push_unneeded(waker);
    wakers.run(&mut panicked);
    panicked.resume();
}

/// An allocator with its waiters, used as the leases of an arena use them: for tests and models.
#[cfg(test)]
pub(super) mod pool {
    use std::task::{Poll, Waker};

    use super::{WaiterId, Waiters};
    use crate::slots::{Allocator, BuddyAllocator, FreeOutcome, Search, SlotBitmap};

    pub(in crate::wait) struct Pool {
        pub(in crate::wait) allocator: Allocator,
        pub(in crate::wait) waiters: Waiters,
    }

    impl Pool {
        pub(in crate::wait) fn of_slots(count: usize) -> Pool {
            Pool::new(Allocator::Slots(SlotBitmap::new(count).unwrap()))
        }

        pub(in crate::wait) fn of_blocks(max_order: u32) -> Pool {
            Pool::new(Allocator::Blocks(BuddyAllocator::new(max_order).unwrap()))
        }

        fn new(allocator: Allocator) -> Pool {
            let waiters = Waiters::new(&allocator, None);
            Pool { allocator, waiters }
        }

        /// Calls `call` with the order of each block that is left for others.
        #[cfg(not(uring_arena_loom))]
        pub(in crate::wait) fn with_callback(
            self,
            call: impl Fn(u32) + Send + Sync + 'static,
        ) -> Pool {
            let on_free = super::OnFree { call: Box::new(call), is_on_demand: false };
            let waiters = Waiters::new(&self.allocator, Some(on_free));
            Pool { waiters, ..self }
        }

        /// Claims as `Handle::claim_slot` and `Handle::claim_block` do.
        pub(in crate::wait) fn claim(&self, order: u32) -> Option<u32> {
            let hinted = match &self.allocator {
                Allocator::Slots(bitmap) => bitmap.claim_hinted(),
                Allocator::Blocks(buddy) => buddy.claim_hinted(order),
            };
            let searched = hinted.map_or_else(|| self.allocator.search(order), Search::Found);
            match searched {
                Search::Found(first) => Some(first),
                Search::Full => None,
                Search::Unsettled => self.claim_still(order),
            }
        }

        pub(in crate::wait) fn claim_still(&self, order: u32) -> Option<u32> {
            self.waiters.claim_still(&self.allocator, order)
        }

        #[cfg(uring_arena_loom)]
        pub(in crate::wait) fn claim_or_join(&self, order: u32) -> Result<u32, WaiterId> {
            self.waiters.claim_or_join(&self.allocator, order)
        }

        /// Frees a claim. Returns `true` if that took the way past the waiters.
        pub(in crate::wait) fn free(&self, first: u32, order: u32) -> bool {
            let outcome = match &self.allocator {
                Allocator::Slots(bitmap) => {
                    let (word, free) = bitmap.prepare_free(first);
                    free.free(word)
                }
                Allocator::Blocks(buddy) => {
                    let (word, free) = buddy.prepare_free(first, order, order);
                    free.free(word)
                }
            };
            let has_waiters = outcome == FreeOutcome::HasWaiters;
            if has_waiters {
                self.waiters.release(&self.allocator, first, order, &|_, _| {});
            }
            has_waiters
        }

        pub(in crate::wait) fn join(&self, order: u32) -> WaiterId {
            self.waiters.join(&self.allocator, order)
        }

        pub(in crate::wait) fn poll(&self, id: WaiterId, waker: &Waker) -> Poll<u32> {
            let (polled, unneeded) = self.waiters.poll(id, waker);
            super::drop_waker(unneeded);
            polled
        }

        pub(in crate::wait) fn leave(&self, id: WaiterId) {
            self.waiters.leave(&self.allocator, id, &|_, _| {});
        }
    }
}
