//! What a socket sends, as a stream.

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

use super::multishot_recv::Armed;
use super::receive_ring::Shared;
use crate::uring::Status;

/// What a socket sends, as [`Bytes`] in the slots where it arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// Read it or drop it: what arrives meanwhile waits in its slots. Dropping it cancels the receive;
/// bytes that had arrived are lost.
pub struct ReceiveStream<D: AsFd + Clone + Unpin + 'static> {
    shared: Rc<Shared>,
    socket: D,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    armed: Option<Submit<Armed<D>>>,
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
    finished: bool,
}

impl<D: AsFd + Clone + Unpin + 'static> ReceiveStream<D> {
    pub(super) fn new(shared: Rc<Shared>, socket: D) -> ReceiveStream<D> {
        ReceiveStream {
            shared,
            socket,
            arrived: Rc::default(),
            armed: None,
            waiting: None,
            finished: false,
        }
    }

    /// The next bytes, or `None` when the peer has finished.
    ///
    /// # Errors
    ///
    /// What the socket answers; nothing comes after that.
    ///
    /// # Panics
    ///
    /// Outside the runtime that the ring was made in.
    pub async fn try_next(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    fn arm(&mut self) {
        assert!(
            self.shared.anchor.is_here(),
            "not in the compio runtime that the ring was made in"
        );
        let armed =
            Armed::new(Rc::clone(&self.shared), Rc::clone(&self.arrived), self.socket.clone());
        self.armed = Some(Runtime::with_current(|runtime| runtime.submit(armed)));
    }

    /// Waits until a slot lies ready.
    fn poll_slots(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.shared.ring.borrow_mut().refill() > 0 {
                self.waiting = None;
                return Poll::Ready(());
            }
            let Some(waiting) = &mut self.waiting else {
                // The place in the queue comes before the next look, so a slot freed from here on
                // wakes us.
                let place = self.shared.ring.borrow().arena().listen();
                self.waiting = Some(Box::pin(place));
                continue;
            };
            if waiting.as_mut().poll(context).is_pending() {
                self.shared.starved.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            self.waiting = None;
        }
    }
}

impl<D: AsFd + Clone + Unpin + 'static> Stream for ReceiveStream<D> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let next = self.arrived.borrow_mut().pop_front();
            if let Some(bytes) = next {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            let Some(armed) = &mut self.armed else {
                ready!(self.poll_slots(context));
                self.arm();
                continue;
            };
            let BufResult(answer, ended) = ready!(Pin::new(armed).poll(context));
            self.armed = None;
            match ended.status {
                Some(Status::Ended | Status::Starved) => {}
                Some(Status::Failed { errno }) => {
                    self.finished = true;
                    return Poll::Ready(Some(Err(io::Error::from_raw_os_error(errno))));
                }
                Some(_) => self.finished = true,
                None => {
                    // compio refused it before the kernel saw it.
                    self.finished = true;
                    return Poll::Ready(Some(Err(answer
                        .err()
                        .unwrap_or(io::ErrorKind::Unsupported.into()))));
                }
            }
        }
    }
}

impl<D: AsFd + Clone + Unpin + 'static> fmt::Debug for ReceiveStream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveStream")
            .field("arrived", &self.arrived.borrow().len())
            .field("armed", &self.armed.is_some())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
