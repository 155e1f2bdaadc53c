//! The writing side of a socket whose reading side is a stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncWrite, Interest};
use ::tokio::sync::oneshot;

use super::mailbox::{Command, FileKey, is_shut_down};
use super::pool::Shared;
use super::socket::Plain;
use crate::buffer::Payload;
use crate::sync::Arc;
use crate::uring::SendOptions;

/// The writing side of a socket: an `AsyncWrite`, and zero-copy sends of what lies in the pool's
/// arena.
///
/// Both go out in the order in which they were begun. Dropping it does not end the connection while
/// the [`RecvStream`](super::RecvStream) is there; `shutdown` tells the peer that nothing more
/// comes.
pub struct SendHalf {
    /// Watched for writing only, so that what arrives wakes nobody.
    socket: AsyncFd<Plain>,
    shared: Arc<Shared>,
    /// The socket as the driver knows it, after the first send.
    key: Option<FileKey>,
    /// A send whose future was dropped: what is written next waits for it.
    outstanding: Option<oneshot::Receiver<io::Result<()>>>,
}

impl SendHalf {
    pub(super) fn new(shared: Arc<Shared>, socket: Plain) -> io::Result<SendHalf> {
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::WRITABLE)?;
        Ok(SendHalf { socket, shared, key: None, outstanding: None })
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes), all of it,
    /// from where it lies: zero-copy from [`SendOptions::ZERO_COPY_FROM`] bytes on, if it lies in
    /// the pool's arena.
    ///
    /// Ready when the kernel is done with the memory, which for a zero-copy send is when the peer
    /// has acknowledged it. If the future is dropped the send goes on.
    ///
    /// # Errors
    ///
    /// What the socket answers, or [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut
    /// down.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// use tokio::io::AsyncReadExt;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(65536).unwrap());
    /// let pool = Pool::new(FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let (_incoming, mut outgoing) = pool.split(near)?;
    /// let mut frame = pool.allocate()?;
    /// frame.put_slice(b"hello");
    /// outgoing.send(frame.freeze()).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn send(&mut self, memory: impl Into<Payload>) -> io::Result<()> {
        self.send_with(memory, SendOptions::new()).await
    }

    /// As [`send`](Self::send), with another threshold for zero-copy.
    ///
    /// # Errors
    ///
    /// As for `send`.
    pub async fn send_with(
        &mut self,
        memory: impl Into<Payload>,
        options: SendOptions,
    ) -> io::Result<()> {
        let payload = memory.into();
        std::future::poll_fn(|context| self.poll_outstanding(context)).await?;
        let key = self.key()?;
        let (answer, answered) = oneshot::channel();
        self.outstanding = Some(answered);
        self.shared.mailbox.post(Command::Send { key, payload, options, answer });
        std::future::poll_fn(|context| self.poll_outstanding(context)).await
    }

    /// The socket as the driver knows it.
    fn key(&mut self) -> io::Result<FileKey> {
        if let Some(key) = self.key {
            return Ok(key);
        }
        let file = self.socket.get_ref().try_clone()?.into();
        let key = self.shared.mailbox.new_key();
        self.shared.mailbox.post(Command::Open { key, file });
        self.key = Some(key);
        Ok(key)
    }

    /// Waits for the send under way; its error comes once.
    fn poll_outstanding(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(outstanding) = &mut self.outstanding else { return Poll::Ready(Ok(())) };
        let answer = ready!(Pin::new(outstanding).poll(context));
        self.outstanding = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(is_shut_down())))
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outstanding(context))?;
        loop {
            let mut ready = ready!(self.socket.poll_write_ready(context))?;
            match ready.try_io(|socket| socket.get_ref().write(bytes)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outstanding(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outstanding(context))?;
        Poll::Ready(self.socket.get_ref().finish())
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.mailbox.post(Command::CloseFile { key });
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf").finish_non_exhaustive()
    }
}
