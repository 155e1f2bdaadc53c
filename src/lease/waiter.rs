//! The wait of one claimant, be it a task, a thread or a ring.
//!
//! # Safety
//!
//! Unsafe here: making the lease of a slot that was kept for the place.
#![allow(unsafe_code)]

use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use super::handle::Handle;
use super::lease::Lease;
use super::ledger::{Seat, Turn};
use crate::sync::Arc;

/// A wait for a slot, or a block, in the queue of an arena: a future that gives the lease.
///
/// A caller joins the queue ([`Handle::join_queue`]), looks for a free slot once more, and polls
/// only if there was none. Nobody overtakes a wait that was polled. Dropping the future leaves the
/// queue; a slot that was granted to it goes to the next waiter.
#[must_use = "a wait that is dropped leaves the queue"]
pub(crate) struct WaitForSlot {
    handle: Handle,
    /// `None` once it was served.
    seat: Option<Seat>,
}

impl WaitForSlot {
    pub(super) fn new(handle: Handle, seat: Seat) -> WaitForSlot {
        WaitForSlot { handle, seat: Some(seat) }
    }

    /// Takes the slot that was kept for this place, or has `waker` woken when one is.
    fn poll_slot(&mut self, waker: &Waker) -> Poll<(u32, u32)> {
        let seat = self.seat.expect("polled again after it was served");
        let turn = self.handle.waiters.ledger.lock().look(seat, waker);
        match turn {
            Turn::Sleeping(replaced) => {
                // Outside of the lock: the last waker of a task may take the task with it.
                drop(replaced);
                Poll::Pending
            }
            Turn::Served(slot) => {
                self.seat = None;
                Poll::Ready((slot, seat.order))
            }
        }
    }

    /// Blocks this thread until the place is served, or `deadline` has passed. `None` for no
    /// deadline.
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
        self.poll_slot(context.waker()).map(|(slot, order)| {
            // SAFETY: kept for this place alone, claimed, and without a lease (the ledger's
            // invariant 2).
            unsafe { self.handle.kept_lease(slot, order) }
        })
    }
}

impl Drop for WaitForSlot {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.handle.leave_queue(seat);
        }
    }
}

/// A place whose owner claims by itself: its slot goes to the books when the place is served, and
/// the owner looks there at once.
pub(crate) struct Bell(WaitForSlot);

impl Bell {
    pub(super) fn new(place: WaitForSlot) -> Bell {
        Bell(place)
    }
}

impl Future for Bell {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0
            .poll_slot(context.waker())
            .map(|(slot, order)| self.0.handle.free_unheeded(slot, order))
    }
}

/// Wakes a thread that waits in [`WaitForSlot::wait`]. A wake too many is harmless: the thread looks at
/// its place again.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
