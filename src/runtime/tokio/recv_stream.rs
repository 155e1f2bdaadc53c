//! The bytes that a socket receives, as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use ::tokio::task::coop::poll_proceed;
use bytes::{Buf, Bytes};
use futures_core::Stream;

use super::readiness::{Connection, Reading};
use super::ring::RingSource;
use super::send_half::SendHalf;
use super::send_queue::trace_received;
use crate::sync::Arc;

/// The bytes that a socket receives, in the slots where they arrived: a [`Stream`] of
/// `io::Result<Bytes>`.
///
/// The bytes may be kept, cloned and sent to other threads; the last drop frees the slot. Dropping
/// the stream closes its side of the socket. A read takes part in the budget of its task, as those
/// of tokio do.
///
/// It is an `AsyncRead` as well, and an `AsyncBufRead` whose slices lie in the slot. A codec of
/// `tokio_util` works on it as on a socket. The ways of reading mix: each goes on where the last
/// one ended.
pub struct RecvStream {
    source: Source,
    /// Bytes that were received, and not handed out yet. None of them is empty.
    taken: VecDeque<Bytes>,
    finished: bool,
}

/// The engine that receives.
enum Source {
    /// Boxed: a stream of readiness is small, and lies beside the state of its task.
    Ring(Box<RingSource>),
    Readiness(Reading),
}

/// Tells the log of a receive by tokio's reactor.
#[inline]
fn trace_first(reading: &Reading, received: &io::Result<Option<Bytes>>) {
    let len = |first: &Option<Bytes>| first.as_ref().map_or(0, Bytes::len);
    trace_received(reading.connection().queue().span(), received.as_ref().map(len));
}

impl RecvStream {
    pub(super) fn on_ring(source: RingSource) -> RecvStream {
        RecvStream {
            source: Source::Ring(Box::new(source)),
            taken: VecDeque::new(),
            finished: false,
        }
    }

    pub(super) fn by_readiness(connection: Arc<Connection>) -> RecvStream {
        let source = Source::Readiness(Reading::new(connection));
        RecvStream { source, taken: VecDeque::new(), finished: false }
    }

    /// Returns the connection, if tokio's reactor watches it.
    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.source {
            Source::Readiness(reading) => Some(reading.connection()),
            Source::Ring(_) => None,
        }
    }

    /// Returns whether the half is of the same connection.
    pub(super) fn is_of(&self, half: &SendHalf) -> bool {
        match &self.source {
            Source::Ring(ring) => ring.is_of(half.queue()),
            Source::Readiness(reading) => {
                half.connection().is_some_and(|its| Arc::ptr_eq(its, reading.connection()))
            }
        }
    }

    /// Takes the bytes that were received and not handed out. A driver lets go of the socket.
    pub(super) async fn take_received(&mut self) -> io::Result<Vec<Bytes>> {
        if let Source::Ring(ring) = &mut self.source {
            ring.give_back(&mut self.taken).await?;
        }
        Ok(std::mem::take(&mut self.taken).into())
    }

    /// Waits for bytes, or the end. Does nothing if some were received and not handed out.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.taken.is_empty() || self.finished {
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut self.source {
            Source::Ring(ring) => ready!(ring.poll_messages(&mut self.taken, context)),
            Source::Readiness(reading) => {
                let received = ready!(reading.poll_receive(&mut self.taken, context));
                trace_first(reading, &received);
                // In front of those that came with it.
                received.map(|first| first.into_iter().for_each(|it| self.taken.push_front(it)))
            }
        };
        self.finished = self.taken.is_empty();
        Poll::Ready(polled)
    }

    /// Waits for the next bytes, as [`Stream::poll_next`] does.
    #[inline]
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.taken.is_empty() && !self.finished {
            match &mut self.source {
                // Takes part in the budget of the task, and goes past the queue.
                Source::Readiness(reading) => {
                    let received = ready!(reading.poll_receive(&mut self.taken, context));
                    trace_first(reading, &received);
                    self.finished = !matches!(received, Ok(Some(_)));
                    return Poll::Ready(received.transpose());
                }
                Source::Ring(_) => {
                    if let Err(error) = ready!(self.poll_fill(context)) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        if self.taken.is_empty() {
            return Poll::Ready(None);
        }
        // A peer that sends without a break keeps no other task from running.
        let budget = ready!(poll_proceed(context));
        budget.made_progress();
        Poll::Ready(self.taken.pop_front().map(Ok))
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
        poll_fn(|context| self.poll_bytes(context)).await.transpose()
    }
}

impl Stream for RecvStream {
    type Item = io::Result<Bytes>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_bytes(context)
    }
}

/// Copies bytes out. A socket that tokio's reactor watches receives right into the caller's memory,
/// and takes no slot.
impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken.is_empty()
            && !this.finished
            && let Source::Readiness(reading) = &mut this.source
        {
            let filled = room.filled().len();
            let read = ready!(reading.poll_read(context, room));
            let span = reading.connection().queue().span();
            trace_received(span, read.as_ref().map(|()| room.filled().len() - filled));
            this.finished = read.is_err() || room.filled().len() == filled && room.remaining() > 0;
            return Poll::Ready(read);
        }
        let bytes = ready!(self.as_mut().poll_fill_buf(context))?;
        let len = bytes.len().min(room.remaining());
        room.put_slice(&bytes[..len]);
        self.consume(len);
        Poll::Ready(Ok(()))
    }
}

/// Shows bytes where they lie, in their slot. It is free when all of them are consumed.
impl AsyncBufRead for RecvStream {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_fill(context))?;
        if !this.taken.is_empty() {
            let budget = ready!(poll_proceed(context));
            budget.made_progress();
        }
        Poll::Ready(Ok(this.taken.front().map_or(&[], |bytes| &bytes[..])))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        if let Some(bytes) = self.taken.front_mut() {
            bytes.advance(amount);
            if bytes.is_empty() {
                self.taken.pop_front();
            }
        }
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}
