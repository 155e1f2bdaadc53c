//! The bytes that a socket receives, as a stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use compio_buf::BufResult;
use compio_runtime::{Runtime, Submit};
use futures_core::Stream;

use super::multishot_recv::MultishotRecv;
use super::op_adapter::OpAdapter;
use super::ring_state::{RingState, Ticket};
use crate::uring::Status;

/// The bytes that a socket receives, in the slots where they arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// Read it or drop it: bytes that arrive meanwhile wait in their slots. Dropping it cancels the
/// receive; bytes that had arrived are lost.
pub struct ReceiveStream<D: AsFd + Clone + Unpin + 'static> {
    state: Rc<RingState>,
    socket: D,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    receive: Option<Submit<OpAdapter<MultishotRecv, D>>>,
    /// The stream's place among the starved ones, while it waits for a slot.
    ticket: Option<Ticket>,
    /// Set if the receive before brought bytes.
    was_served: bool,
    finished: bool,
}

impl<D: AsFd + Clone + Unpin + 'static> ReceiveStream<D> {
    pub(super) fn new(state: Rc<RingState>, socket: D) -> ReceiveStream<D> {
        ReceiveStream {
            state,
            socket,
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
    ///
    /// # Panics
    ///
    /// Outside the runtime that the ring was made in.
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
            let Some(receive) = &mut this.receive else {
                ready!(this.state.poll_receive(&mut this.ticket, this.was_served, context));
                let receive = MultishotRecv::new(&this.state, &this.arrived, this.socket.clone());
                let submit = Runtime::with_current(|runtime| runtime.submit(receive));
                this.receive = Some(submit);
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
