//! The wait of one claimant, be it a task, a thread or a ring.
//!
//! # Safety
//!
//! Unsafe here: making the lease of a slot that the queue granted, or that a search claimed.
#![allow(unsafe_code)]

use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use super::handle::Handle;
use super::holder_table::Place;
use super::lease::Lease;
use crate::sync::Arc;
use crate::wait::{Pressure, WaiterId, WatchId, drop_waker};

/// A wait for a slot, or a block, in the queue of an arena: a future that gives the lease.
///
/// A caller joins the queue, looks for free memory once more, and polls only if there was none.
/// Nobody overtakes a wait that was polled. Dropping the future leaves the queue; a slot that was
/// granted to it goes to the next waiter.
#[must_use = "a wait that is dropped leaves the queue"]
pub(crate) struct WaitForSlot {
    handle: Handle,
    /// The waiter's identity; `None` once it was served.
    id: Option<WaiterId>,
    place: Place,
}

impl WaitForSlot {
    /// Joins the queue behind all waiters for a block of `order`; slots are of order 0.
    pub(crate) fn join(handle: &Handle, order: u32, place: Place) -> WaitForSlot {
        let id = handle.waiters.join(&handle.allocator, order);
        handle.note_live();
        WaitForSlot { handle: handle.clone(), id: Some(id), place }
    }

    /// Claims a slot, or a block of `order`, or joins the queue if none is free.
    pub(crate) fn claim_or_join(
        handle: &Handle,
        order: u32,
        place: Place,
    ) -> Result<Lease, WaitForSlot> {
        match handle.waiters.claim_or_join(&handle.allocator, order) {
            // SAFETY: just claimed, so this is its only lease.
            Ok(first) => Ok(unsafe { handle.granted_lease(first, order, place) }),
            Err(id) => {
                handle.note_live();
                let waiting = WaitForSlot { handle: handle.clone(), id: Some(id), place };
                handle.tell_of_wait();
                Err(waiting)
            }
        }
    }

    /// Blocks this thread until a slot was granted, or `deadline` has passed; `None` is no
    /// deadline.
    ///
    /// Returns `None` if the deadline has passed.
    #[cfg_attr(uring_arena_loom, allow(dead_code, reason = "loom has no clock"))]
    pub(crate) fn wait(mut self, deadline: Option<Instant>) -> Option<Lease> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(lease) = Pin::new(&mut self).poll(&mut context) {
                return Some(lease);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return None,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }
}

impl Future for WaitForSlot {
    type Output = Lease;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Lease> {
        let id = self.id.expect("polled again after it was served");
        let (slot, unneeded) = self.handle.waiters.poll(id, context.waker());
        let lease = slot.map(|slot| {
            self.id = None;
            // SAFETY: granted to this waiter alone, claimed, and without a lease (invariant 2 of
            // the queue).
            unsafe { self.handle.granted_lease(slot, id.order, self.place) }
        });
        // When the lease is made: foreign code may panic.
        if lease.is_ready() {
            self.handle.tell_of_end_of_wait();
        }
        drop_waker(unneeded);
        lease
    }
}

impl Drop for WaitForSlot {
    fn drop(&mut self) {
        let handle = &self.handle;
        if let Some(id) = self.id {
            let record_order = |first, order| handle.record_order(first, order);
            handle.waiters.leave(&handle.allocator, id, &record_order);
            handle.tell_of_end_of_wait();
        }
    }
}

/// The watch of a ring that may have slots to spare: it is told when somebody begins to wait for
/// one.
///
/// A watch calls once, and is then renewed. Dropping it ends it.
pub(crate) struct Watch {
    handle: Handle,
    id: WatchId,
}

impl Watch {
    /// Creates a watch that does not call yet.
    pub(crate) fn new(handle: &Handle) -> Watch {
        Watch { handle: handle.clone(), id: handle.waiters.new_watch_id() }
    }

    /// Has `waker` called once, when somebody begins to wait, or when a claim is refused if
    /// `hears_refusals`. Returns the pressure now.
    pub(crate) fn renew(&self, waker: &Waker, hears_refusals: bool) -> Pressure {
        self.handle.waiters.watch(self.id, waker, hears_refusals)
    }

    /// Ends the watch until it is renewed.
    pub(crate) fn stop(&self) {
        self.handle.waiters.unwatch(self.id);
    }

    /// Returns the pressure now.
    pub(crate) fn pressure(&self) -> Pressure {
        self.handle.waiters.pressure()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A claimant that waits under a policy of the user's, for as long as the value exists.
#[cfg(feature = "async-alloc")]
pub(crate) struct WaitElsewhere {
    handle: Handle,
    since: Instant,
}

#[cfg(feature = "async-alloc")]
impl WaitElsewhere {
    pub(crate) fn begin(handle: &Handle) -> WaitElsewhere {
        handle.waiters.begin_elsewhere();
        handle.note_live();
        WaitElsewhere { handle: handle.clone(), since: Instant::now() }
    }
}

#[cfg(feature = "async-alloc")]
impl Drop for WaitElsewhere {
    fn drop(&mut self) {
        self.handle.waiters.end_elsewhere(self.since.elapsed());
    }
}

/// A waker of the thread in [`WaitForSlot::wait`]. A wake too many is harmless: the thread polls
/// again.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
