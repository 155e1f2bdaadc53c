//! A buffer ring on a compio runtime, and the streams that wait for its slots.
//!
//! A multishot receive takes its slot first: on an empty ring it ends at once, with or without
//! data. So a starved stream receives again only when the ring has slots. A task of the ring, which
//! runs while streams are starved, sees to that.
//!
//! | the ring has | the task |
//! |---|---|
//! | no slot | waits in the arena's queue, as any waiter, and posts the slot that it is granted |
//! | slots | wakes as many streams as there are slots, waits for one turn of the driver |
//! | no starved stream | ends |
//!
//! A socket with data takes its slot within that turn. A silent socket, or a stream that nothing
//! polls, leaves it for the next stream. Without the turn one slot would set all streams going.
//!
//! # Safety
//!
//! Unsafe here: unregistering the ring. Each receive in flight keeps the state, so none is in
//! flight when the state is dropped. `is_lost` records the exception: a receive that the runtime
//! dropped before its completion.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use io_uring::opcode;

use super::guard::RuntimeGuard;
use super::op_adapter::{Begun, NoMemory, OpAdapter};
use crate::lease::{Place, WaitForSlot};
use crate::runtime::liveness::{Guard, Life};
use crate::sync::contain;
use crate::uring::{BufferRing, RingError};

/// The part of a ring that its receives and streams share.
pub(super) struct RingState {
    pub(super) ring: RefCell<BufferRing>,
    pub(super) guard: Rc<RuntimeGuard>,
    /// The streams that wait for slots, in the order in which they go on.
    starved: RefCell<BTreeMap<Ticket, Waker>>,
    next_number: Cell<u64>,
    /// The ring's place in the arena's queue, while streams are starved and no slot lies ready.
    waiting: Cell<Option<WaitForSlot>>,
    /// The waker of the ring's task.
    task: Cell<Option<Waker>>,
    has_task: Cell<bool>,
    /// Set when the runtime dropped a receive that the kernel may still have.
    pub(super) is_lost: Cell<bool>,
}

/// A stream's place among the starved ones.
///
/// A stream that got nothing since it last received goes before one that was served. With one order
/// for both, a stream that always has more data could take each slot again as it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    was_served: bool,
    number: u64,
}

impl RingState {
    pub(super) fn new(ring: BufferRing, guard: Rc<RuntimeGuard>) -> Rc<RingState> {
        Rc::new(RingState {
            ring: RefCell::new(ring),
            guard,
            starved: RefCell::default(),
            next_number: Cell::new(0),
            waiting: Cell::new(None),
            task: Cell::new(None),
            has_task: Cell::new(false),
            is_lost: Cell::new(false),
        })
    }

    /// Waits until a stream may receive. `ticket` is the stream's place while it waits.
    ///
    /// This thread is in the runtime that the ring was made in.
    pub(super) fn poll_receive(
        self: &Rc<Self>,
        ticket: &mut Option<Ticket>,
        was_served: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(ticket) = *ticket
            && self.starved.borrow().contains_key(&ticket)
        {
            let waker = context.waker().clone();
            let replaced = self.starved.borrow_mut().insert(ticket, waker);
            // Dropped here, with no cell borrowed: the last waker of a task may take it along.
            drop(replaced);
            return Poll::Pending;
        }
        // A stream that lost its slot to another after its turn had come is unserved.
        let had_turn = ticket.take().is_some();
        let is_next = had_turn || self.starved.borrow().is_empty();
        if is_next && self.ring.borrow_mut().refill() > 0 {
            return Poll::Ready(());
        }
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let new = Ticket { was_served: was_served && !had_turn, number };
        let waker = context.waker().clone();
        self.starved.borrow_mut().insert(new, waker);
        *ticket = Some(new);
        if !self.has_task.replace(true) {
            compio_runtime::spawn(serve_starved(Rc::downgrade(self))).detach();
        }
        Poll::Pending
    }

    /// Gives up a stream's place. The last stream gives up the ring's place with it.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut starved = self.starved.borrow_mut();
        let left = starved.remove(&ticket);
        let is_idle = starved.is_empty();
        drop(starved);
        if left.is_some() && is_idle {
            self.waiting.take();
            self.wake_task();
        }
        // `left` is dropped here, with no cell borrowed: it may take a task with it.
    }

    /// Publishes the slots that a completion left, after `ring`, which is this state's, was let go.
    pub(super) fn refill_after_completion(&self, mut ring: RefMut<'_, BufferRing>) {
        if self.starved.borrow().is_empty() {
            ring.refill_in_bulk();
        } else if ring.refill() > 0 {
            drop(ring);
            // Short messages were copied, say, and their slots lie ready again.
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = self.task.take() {
            contain("the waker of a ring's task", || task.wake());
        }
    }

    /// Waits until slots lie ready, and returns how many streams find some. Returns `None` if no
    /// stream is starved.
    fn poll_slots(&self, context: &mut Context<'_>) -> Poll<Option<usize>> {
        loop {
            if self.starved.borrow().is_empty() {
                return Poll::Ready(None);
            }
            let mut ring = self.ring.borrow_mut();
            ring.refill();
            let ready = ring.entries_ready();
            drop(ring);
            if ready > 0 {
                self.waiting.take();
                return Poll::Ready(Some(ready));
            }
            let Some(mut waiting) = self.waiting.take() else {
                // The place in the queue comes before a second look, so that no slot is missed.
                let waiting = WaitForSlot::join(self.ring.borrow().arena(), 0, Place::here());
                self.waiting.set(Some(waiting));
                continue;
            };
            match Pin::new(&mut waiting).poll(context) {
                Poll::Ready(lease) => self.ring.borrow_mut().add_slot(lease),
                Poll::Pending => {
                    self.waiting.set(Some(waiting));
                    self.task.set(Some(context.waker().clone()));
                    return Poll::Pending;
                }
            }
        }
    }

    /// Lets the first `count` starved streams receive.
    fn wake_streams(&self, count: usize) {
        for _ in 0..count {
            let first = self.starved.borrow_mut().pop_first();
            let Some((_, waker)) = first else { return };
            contain("the waker of a stream", || waker.wake());
        }
    }
}

impl Drop for RingState {
    fn drop(&mut self) {
        if self.guard.lasts() && !self.is_lost.get() {
            // SAFETY: the ring that it was registered on, which lives; no receive is in flight (see
            // the head of this file).
            let result = unsafe { self.ring.get_mut().unregister(&*self.guard) };
            match result {
                // It is the parent's.
                Ok(()) | Err(RingError::OtherProcess { .. }) => {}
                Err(error) => {
                    tracing::error!(%error, "a buffer ring stays registered: its slots are quarantined");
                }
            }
        }
    }
}

/// Serves the starved streams of a ring until none is left.
async fn serve_starved(state: Weak<RingState>) {
    /// A guard that ends the wait with the task: a runtime that ends drops its tasks.
    struct Task(Weak<RingState>);

    impl Drop for Task {
        fn drop(&mut self) {
            if let Some(state) = self.0.upgrade() {
                state.waiting.take();
                state.has_task.set(false);
            }
        }
    }

    let task = Task(state);
    let poll_slots = |context: &mut Context<'_>| match task.0.upgrade() {
        Some(state) => state.poll_slots(context),
        None => Poll::Ready(None),
    };
    while let Some(ready) = poll_fn(poll_slots).await {
        let Some(state) = task.0.upgrade() else { return };
        state.wake_streams(ready);
        let turn = turn_of_driver(&state.guard);
        drop(state);
        turn.await;
    }
}

/// Waits until the driver has submitted what was pushed before, and has seen the completions.
fn turn_of_driver(guard: &RuntimeGuard) -> impl Future<Output = ()> + use<> {
    let nop = OpAdapter::new(guard.liveness(), (), opcode::Nop::new().build(), NoMemory);
    let nop = Begun::submit(nop);
    async move { drop(nop.await) }
}
