//! The writing side of a socket, beside the stream that reads.

use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncWrite, Interest};
use ::tokio::sync::oneshot;

use super::ring::{Command, EngineHandle, FileKey};
use crate::buffer::Payload;
use crate::sync::Arc;
use crate::uring::SendOptions;

/// The writing side of a socket: an `AsyncWrite`, and zero-copy sends of memory in the pool's
/// arena.
///
/// Writes and sends go out in the order in which they were begun. Dropping the half does not end
/// the connection while the [`RecvStream`](super::RecvStream) is there; `shutdown` tells the peer
/// that nothing more comes.
pub struct SendHalf {
    /// The socket, of whatever family: the calls made on it are the same for all. Watched for
    /// writing only, so that arriving bytes wake no task.
    socket: AsyncFd<TcpStream>,
    engine: Arc<EngineHandle>,
    /// The driver's clone of the socket, made for the first send.
    key: Option<FileKey>,
    /// The send in flight, if any: the next write waits for it.
    outstanding: Option<oneshot::Receiver<io::Result<()>>>,
}

impl SendHalf {
    pub(super) fn new(engine: Arc<EngineHandle>, socket: OwnedFd) -> io::Result<SendHalf> {
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let socket = AsyncFd::with_interest(TcpStream::from(socket), Interest::WRITABLE)?;
        Ok(SendHalf { socket, engine, key: None, outstanding: None })
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes), all of it,
    /// from where it lies.
    ///
    /// Memory of the pool's arena is sent zero-copy from [`SendOptions::ZERO_COPY_FROM`] bytes on.
    /// The future is ready when the kernel is done with the memory: for a zero-copy send, when the
    /// peer has acknowledged it. If the future is dropped, the send goes on.
    ///
    /// # Errors
    ///
    /// The error of the socket, or [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut
    /// down.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use tokio::io::AsyncReadExt;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 65536)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let (_incoming, mut outgoing) = pool.split(near)?;
    /// let mut frame = pool.allocate()?;
    /// frame.put_slice(b"hello");
    /// outgoing.send(frame.freeze()).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&mut self, memory: impl Into<Payload>) -> io::Result<()> {
        self.send_with(memory, SendOptions::new()).await
    }

    /// Sends as [`send`](Self::send) does, with another threshold for zero-copy.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    /// use uring_arena::{FixedArena, SendOptions, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let (_incoming, mut outgoing) = pool.split(near)?;
    /// let copied = SendOptions::new().zero_copy_from(usize::MAX);
    /// outgoing.send_with(Bytes::from_static(b"hello"), copied).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
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
        self.engine.post(Command::Send { key, payload, options, answer });
        std::future::poll_fn(|context| self.poll_outstanding(context)).await
    }

    /// Returns the key of the driver's clone of the socket; makes the clone if need be.
    fn key(&mut self) -> io::Result<FileKey> {
        if let Some(key) = self.key {
            return Ok(key);
        }
        let key = self.engine.open(self.socket.get_ref().try_clone()?.into());
        self.key = Some(key);
        Ok(key)
    }

    /// Waits for the send in flight. Returns its error once.
    fn poll_outstanding(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(outstanding) = &mut self.outstanding else { return Poll::Ready(Ok(())) };
        let answer = ready!(Pin::new(outstanding).poll(context));
        self.outstanding = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.engine.end_error())))
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
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.engine.close(key);
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf").finish_non_exhaustive()
    }
}
