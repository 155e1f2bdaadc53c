//! What a socket sends, as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::pool::Shared;
use super::ring::mailbox::Command;
use super::ring::stream_queue::Inbox;
use crate::sync::Arc;

/// What a socket sends, as [`Bytes`] in the slots where it arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// The bytes may be kept, cloned, sent to other threads; the last drop frees the slot. Dropping the
/// stream closes its side of the socket.
///
/// With `tokio_util::io::StreamReader` it is an `AsyncRead`, and with `FramedRead` on top of that a
/// stream of frames.
pub struct RecvStream {
    inbox: Arc<Inbox>,
    /// Taken out of the inbox, and not handed out yet.
    taken: VecDeque<Bytes>,
    shared: Arc<Shared>,
    finished: bool,
}

impl RecvStream {
    pub(super) fn new(shared: Arc<Shared>, socket: OwnedFd) -> RecvStream {
        let inbox = Arc::new(Inbox::new(shared.messages_max));
        shared.mailbox.post(Command::Receive { socket, inbox: Arc::clone(&inbox) });
        RecvStream { inbox, taken: VecDeque::new(), shared, finished: false }
    }

    /// The next bytes, never empty; `None` when the peer has finished. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// What the socket answers, or [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut
    /// down. Nothing comes after that.
    pub async fn try_next(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }
}

impl Stream for RecvStream {
    type Item = io::Result<Bytes>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(bytes) = this.taken.pop_front() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        if this.finished {
            return Poll::Ready(None);
        }
        match ready!(this.inbox.poll_take(&mut this.taken, context)) {
            Ok(taken) => {
                if taken.may_resume {
                    this.shared.mailbox.post(Command::Resume { inbox: Arc::clone(&this.inbox) });
                }
                let next = this.taken.pop_front();
                this.finished = next.is_none();
                Poll::Ready(next.map(Ok))
            }
            Err(error) => {
                this.finished = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.inbox.abandon();
        if !self.finished {
            self.shared.mailbox.post(Command::Close { inbox: Arc::clone(&self.inbox) });
        }
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}
