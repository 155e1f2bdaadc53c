//! The bytes that a socket receives, as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::ring::{Backpressure, Command, EngineHandle, StreamQueue};
use super::send_queue::Reset;
use crate::sync::Arc;

/// The bytes that a socket receives, in the slots where they arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// The bytes may be kept, cloned and sent to other threads; the last drop frees the slot. Dropping
/// the stream closes its side of the socket.
///
/// `tokio_util::io::StreamReader` makes an `AsyncRead` of a stream, and `FramedRead` on top of that
/// a stream of frames.
pub struct RecvStream {
    queue: Arc<StreamQueue>,
    /// Messages taken out of the queue, and not handed out yet.
    taken: VecDeque<Bytes>,
    engine: Arc<EngineHandle>,
    finished: bool,
}

impl RecvStream {
    pub(super) fn new(
        engine: Arc<EngineHandle>,
        socket: OwnedFd,
        (slots_max, slot_bytes): (usize, usize),
        reset: Reset,
    ) -> RecvStream {
        let queue = Arc::new(StreamQueue::new(slots_max, slot_bytes, reset));
        engine.post(Command::Receive { socket, queue: Arc::clone(&queue) });
        RecvStream { queue, taken: VecDeque::new(), engine, finished: false }
    }

    /// Waits for the next bytes, which are never empty. Returns `None` when the peer has finished.
    ///
    /// Dropping the future loses nothing.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let mut incoming = pool.recv_stream(near)?;
    /// far.write_all(b"hello").await?;
    /// drop(far);
    /// assert_eq!(incoming.try_next().await?.unwrap(), "hello");
    /// assert!(incoming.try_next().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the socket, or [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut
    /// down. Nothing comes after an error.
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
        let polled = match this.engine.here() {
            Ok(()) => ready!(this.queue.poll_take(&mut this.taken, context)),
            Err(error) => Err(error.into()),
        };
        match polled {
            Ok(change) => {
                if change == Backpressure::Resume {
                    this.engine.post(Command::Resume { queue: Arc::clone(&this.queue) });
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
        if self.engine.here().is_err() {
            return std::mem::forget(Arc::clone(&self.queue));
        }
        self.queue.abandon();
        if !self.finished {
            self.engine.post(Command::Close { queue: Arc::clone(&self.queue) });
        }
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}
