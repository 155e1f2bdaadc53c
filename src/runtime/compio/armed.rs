//! A multishot receive as compio's driver carries it.
//!
//! # Safety
//!
//! Unsafe here: the contract of compio's `OpCode`, and handing completions to the ring. compio
//! gives each to the value whose entry it is of, once: `push_multishot` for those that more will
//! follow, `set_result` for the last.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
#[cfg(feature = "compio-polling")]
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;
use compio_driver::{Extra, IourOpCode, OpEntry};
use io_uring::{cqueue, squeue, types};

use super::operation::{raw_receive_flags, raw_result};
use super::receive_ring::Shared;
use crate::uring::{BufferRing, Status};

/// A receive as compio's driver carries it. It puts what arrives where its stream finds it; compio
/// wakes the stream.
pub(super) struct Armed<D> {
    entry: squeue::Entry,
    shared: Rc<Shared>,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    /// Set by the last completion.
    pub(super) status: Option<Status>,
    /// Whether the kernel may know of it; counted in the session then.
    submitted: bool,
    /// Kept open, so that the number means the same until the end.
    _socket: D,
}

impl<D: AsFd> Armed<D> {
    /// The receive of `socket`, on the runtime of the ring.
    pub(super) fn new(
        shared: Rc<Shared>,
        arrived: Rc<RefCell<VecDeque<Bytes>>>,
        socket: D,
    ) -> Armed<D> {
        let entry = shared.ring.borrow().receive_multi(types::Fd(socket.as_fd().as_raw_fd()));
        Armed { entry, shared, arrived, status: None, submitted: false, _socket: socket }
    }
}

impl<D> Armed<D> {
    fn complete(&mut self, result: i32, flags: u32) -> Status {
        let mut ring = self.shared.ring.borrow_mut();
        let status = self.hand_over(&mut ring, result, flags);
        if self.shared.starved.borrow().is_empty() {
            ring.refill_in_bulk();
        } else if ring.refill() > 0 {
            // Short messages were copied, say, and their slots lie ready again.
            self.shared.starved.take().into_iter().for_each(Waker::wake);
        }
        status
    }

    /// Puts the bytes of a completion where the stream finds them.
    fn hand_over(&self, ring: &mut BufferRing, result: i32, flags: u32) -> Status {
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

impl<D> Drop for Armed<D> {
    fn drop(&mut self) {
        if self.submitted {
            self.shared.anchor.session.note_back();
            if self.status.is_none() {
                self.shared.lost.set(true);
            }
        }
    }
}

// SAFETY: the entry names the group of a ring that this value keeps registered, and a descriptor
// that it keeps open.
unsafe impl<D: 'static> IourOpCode for Armed<D> {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        if !std::mem::replace(&mut self.submitted, true) {
            self.shared.anchor.session.note_lent();
        }
        self.entry.clone().into()
    }

    fn call_blocking(&mut self, (): &mut ()) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn set_result(&mut self, (): &mut (), result: &io::Result<usize>, extra: &Extra) {
        let status = self.complete(raw_result(result), raw_receive_flags(extra, false));
        self.status = Some(status);
    }

    unsafe fn push_multishot(&mut self, (): &mut (), result: io::Result<usize>, extra: Extra) {
        self.complete(raw_result(&result), raw_receive_flags(&extra, true));
    }
}

/// An epoll runtime: nothing of ours gets this far, because nothing attaches to it.
#[cfg(feature = "compio-polling")]
// SAFETY: it never waits for a descriptor.
unsafe impl<D: 'static> compio_driver::PollOpCode for Armed<D> {
    type Control = ();

    fn pre_submit(&mut self, (): &mut ()) -> io::Result<compio_driver::Decision> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn operate(&mut self, (): &mut ()) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
