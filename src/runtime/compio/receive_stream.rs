//! The bytes that a socket receives, as a stream, and the multishot receive behind it.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the ring. They are completions of a receive that names the
//! group of this ring, and [`OpAdapter`] hands each of them in once.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use compio_buf::BufResult;
use futures_core::Stream;
use io_uring::{cqueue, types};

use super::op_adapter::{Begun, Completion, OpAdapter, OpState};
use super::ring_state::{RingState, Ticket};
use crate::driver::DriverError;
use crate::runtime::liveness::{Guard, Life};
use crate::system::socket_type;
use crate::uring::{BufferRing, Status};

/// The bytes that a socket receives, in the slots where they arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// Read it or drop it: bytes that arrive meanwhile wait in their slots. Dropping it cancels the
/// receive; bytes that had arrived are lost.
pub struct ReceiveStream<D: AsFd + Clone + Unpin + 'static> {
    state: Rc<RingState>,
    socket: D,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    receive: Option<Begun<MultishotRecv, D>>,
    /// The stream's place among the starved ones, while it waits for a slot.
    ticket: Option<Ticket>,
    /// Set if the receive before brought bytes.
    was_served: bool,
    /// The type of a socket that is no stream, until the refusal is told.
    refused_type: Option<i32>,
    finished: bool,
}

impl<D: AsFd + Clone + Unpin + 'static> ReceiveStream<D> {
    pub(super) fn new(state: Rc<RingState>, socket: D) -> ReceiveStream<D> {
        let socket_type = socket_type(socket.as_fd());
        ReceiveStream {
            state,
            socket,
            refused_type: socket_type.filter(|&found| found != libc::SOCK_STREAM),
            arrived: Rc::default(),
            receive: None,
            ticket: None,
            was_served: false,
            finished: false,
        }
    }

    /// Waits for the next bytes. Returns `None` when the peer has finished.
    ///
    /// Dropping the future loses no bytes. A starved stream gives up its place among the streams
    /// that wait for a slot. [`ReceiveRing`](super::ReceiveRing) has an example.
    ///
    /// # Errors
    ///
    /// The error of the socket. Nothing comes after it.
    /// [`AttachError::NotInRuntime`](super::AttachError::NotInRuntime) outside the runtime that the
    /// ring was made in, once the bytes that had arrived are taken.
    pub async fn try_next(&mut self) -> io::Result<Option<Bytes>> {
        /// A guard that gives up the stream's place when the future is dropped.
        struct Next<'a, D: AsFd + Clone + Unpin + 'static>(&'a mut ReceiveStream<D>);

        impl<D: AsFd + Clone + Unpin + 'static> Drop for Next<'_, D> {
            fn drop(&mut self) {
                self.0.leave();
            }
        }

        let next = Next(self);
        poll_fn(|context| Pin::new(&mut *next.0).poll_next(context)).await.transpose()
    }

    /// Returns the error outside the ring's runtime. A runtime that is over does not come back.
    fn outside(&mut self) -> io::Error {
        self.finished |= !self.state.guard.lasts();
        self.state.guard.absence().into()
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.state.leave(ticket);
        }
    }
}

impl<D: AsFd + Clone + Unpin + 'static> Stream for ReceiveStream<D> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let next = this.arrived.borrow_mut().pop_front();
            if let Some(bytes) = next {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if this.finished {
                return Poll::Ready(None);
            }
            if let Some(socket_type) = this.refused_type.take() {
                this.finished = true;
                return Poll::Ready(Some(Err(no_stream(socket_type))));
            }
            let is_away = this.receive.is_none() && !this.state.guard.is_here();
            if is_away || !this.state.guard.lasts() {
                return Poll::Ready(Some(Err(this.outside())));
            }
            let Some(receive) = &mut this.receive else {
                ready!(this.state.poll_receive(&mut this.ticket, this.was_served, context));
                let receive = MultishotRecv::new(&this.state, &this.arrived, this.socket.clone());
                this.receive = Some(Begun::submit(receive));
                continue;
            };
            let BufResult(answer, mut ended) = ready!(Pin::new(receive).poll(context));
            this.receive = None;
            this.was_served = ended.state().was_served;
            match ended.state().status {
                Some(Status::Ended | Status::Starved) => {}
                Some(Status::Failed { errno }) => {
                    this.finished = true;
                    return Poll::Ready(Some(Err(io::Error::from_raw_os_error(errno))));
                }
                Some(_) => this.finished = true,
                None => {
                    // compio refused it before the kernel saw it.
                    this.finished = true;
                    let refusal = answer.err().unwrap_or(io::ErrorKind::Unsupported.into());
                    return Poll::Ready(Some(Err(refusal)));
                }
            }
        }
    }
}

/// Builds the refusal of a socket whose messages would lose their boundaries in a stream.
fn no_stream(socket_type: i32) -> io::Error {
    let call = "`ReceiveRing::receive`";
    let instead = "compio's `recv`, or a `Driver` and its `receive_datagrams`";
    DriverError::SocketType { call, socket_type, instead }.into()
}

impl<D: AsFd + Clone + Unpin + 'static> Drop for ReceiveStream<D> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<D: AsFd + Clone + Unpin + 'static> fmt::Debug for ReceiveStream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveStream")
            .field("arrived", &self.arrived.borrow().len())
            .field("receiving", &self.receive.is_some())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

/// A receive that goes on until its socket or its ring ends it. It puts the bytes where its stream
/// finds them; compio wakes the stream.
struct MultishotRecv {
    state: Rc<RingState>,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    /// Set when bytes arrived.
    was_served: bool,
    /// The status of the last completion.
    status: Option<Status>,
}

impl MultishotRecv {
    /// Makes the receive of `socket`, for the runtime of the ring.
    fn new<D: AsFd>(
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
                arrived.push_back(bytes.into());
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
        self.state.refill_after_completion(ring);
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
