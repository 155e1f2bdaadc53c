//! A multishot receive on a compio runtime.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the ring. They are completions of a receive that names the
//! group of this ring, and [`OpAdapter`](super::op_adapter::OpAdapter) hands each of them in once.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use bytes::Bytes;
use io_uring::{cqueue, types};

use super::op_adapter::{Completion, OpAdapter, OpState};
use super::ring_state::RingState;
use crate::runtime::guard::Guard;
use crate::uring::{BufferRing, Status};

/// A receive that goes on until its socket or its ring ends it. It puts the bytes where its stream
/// finds them; compio wakes the stream.
pub(super) struct MultishotRecv {
    state: Rc<RingState>,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    /// Set when bytes arrived.
    pub(super) was_served: bool,
    /// The status of the last completion.
    pub(super) status: Option<Status>,
}

impl MultishotRecv {
    /// Makes the receive of `socket`, for the runtime of the ring.
    pub(super) fn new<D: AsFd>(
        state: &Rc<RingState>,
        arrived: &Rc<RefCell<VecDeque<Bytes>>>,
        socket: D,
    ) -> OpAdapter<MultishotRecv, D> {
        let descriptor = types::Fd(socket.as_fd().as_raw_fd());
        let entry = state.ring.borrow().receive_multi(descriptor);
        let receive = MultishotRecv {
            state: Rc::clone(state),
            arrived: Rc::clone(arrived),
            was_served: false,
            status: None,
        };
        OpAdapter::new(state.guard.liveness(), socket, entry, receive)
    }

    /// Puts the bytes of a completion where the stream finds them.
    fn take_bytes(&self, ring: &mut BufferRing, result: i32, flags: u32) -> Status {
        let mut arrived = self.arrived.borrow_mut();
        if cqueue::more(flags) {
            // SAFETY: a completion of a receive of this ring, from compio's driver, handed in once;
            // the one before it was taken to its end.
            if let Some(bytes) = unsafe { ring.take_fast(result, flags) } {
                arrived.push_back(bytes);
                return Status::Armed;
            }
        }
        // SAFETY: as above, and taken to its end below.
        let (mut cursor, status) = unsafe { ring.begin_completion(result, flags) };
        while let Some(bytes) = ring.take(&mut cursor) {
            arrived.push_back(bytes);
        }
        status
    }
}

impl OpState for MultishotRecv {
    fn complete(&mut self, completion: Completion<'_>) {
        let result = completion.result();
        self.was_served |= result > 0;
        let mut ring = self.state.ring.borrow_mut();
        let status = self.take_bytes(&mut ring, result, completion.receive_flags());
        self.state.refill_after_completion(&mut ring);
        drop(ring);
        if completion.is_last() {
            self.status = Some(status);
        }
    }

    fn before_drop(&mut self, is_known: bool) {
        if is_known && self.status.is_none() {
            self.state.is_lost.set(true);
        }
    }
}
