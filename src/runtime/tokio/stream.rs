//! A connection as one value: reading, writing, and all that tokio's socket can do.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::task::yield_now;
use bytes::Bytes;
use futures_sink::Sink;

use super::recv_stream::RecvStream;
use super::send_half::SendHalf;
use super::socket::{address_by, set_no_delay};
use crate::buffer::Payload;
use crate::sync::Arc;

/// The turns of its runtime that a connection without sends is waited for.
const TURNS_MAX: usize = 10_000;

/// A connection of a [`Pool`](super::Pool), in place of tokio's `TcpStream` or `UnixStream`.
///
/// It is an `AsyncRead`, `AsyncBufRead` and `AsyncWrite`, so hyper, rustls and codecs take it as it
/// is. [`try_next`](Self::try_next) gives the bytes in the slots where they arrived, and
/// [`send`](Self::send) sends memory from where it lies. All of these mix. On
/// [`Engine::Readiness`](super::Engine::Readiness) a stream has one descriptor, and an idle one no
/// slot.
///
/// Dropping the stream closes the connection, behind what is queued to be sent.
///
/// ```
/// use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let mut client = TcpStream::connect(listener.local_addr()?).await?;
/// let mut stream = pool.stream(listener.accept().await?.0)?;
///
/// client.write_all(b"GET\nthe rest").await?;
/// let mut line = String::new();
/// stream.read_line(&mut line).await?;
/// assert_eq!(line, "GET\n");
/// assert_eq!(stream.try_next().await?.unwrap(), "the rest");
/// stream.write_all(b"OK").await?;
/// drop(stream);
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "OK");
/// # Ok(())
/// # }
/// ```
pub struct Stream {
    read: RecvStream,
    write: SendHalf,
}

/// Two halves that are not of one [`Stream`].
///
/// ```
/// use uring_arena::{FixedArena, tokio::{Pool, Stream}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
/// let (first, _far) = tokio::net::UnixStream::pair()?;
/// let (second, _far) = tokio::net::UnixStream::pair()?;
/// let (read, _) = pool.stream(first)?.into_split();
/// let (_, write) = pool.stream(second)?.into_split();
/// let error = Stream::reunite(read, write).unwrap_err();
/// let (_read, _write) = (error.read, error.write);
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error)]
#[error("the two halves are not of the same stream, and were not reunited")]
#[non_exhaustive]
pub struct ReuniteError {
    /// The receiving half, as it was given.
    pub read: RecvStream,
    /// The sending half, as it was given.
    pub write: SendHalf,
}

debug_is_display!(ReuniteError);
into_io_error!(ReuniteError);

impl ReuniteError {
    fn kind(&self) -> io::ErrorKind {
        io::ErrorKind::InvalidInput
    }
}

impl Stream {
    pub(super) fn new(read: RecvStream, write: SendHalf) -> Stream {
        Stream { read, write }
    }

    /// Waits for the next bytes, which are never empty. Returns `None` when the peer has finished.
    ///
    /// Dropping the future loses nothing. The example of [`Stream`] shows it.
    ///
    /// # Errors
    ///
    /// As for [`RecvStream::try_next`].
    pub async fn try_next(&mut self) -> io::Result<Option<Bytes>> {
        self.read.try_next().await
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or `Bytes` from where it lies. Ready when
    /// the bytes are queued: see [`SendHalf::send`].
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let stream = pool.stream(near)?;
    /// stream.send(Bytes::from_static(b"hello")).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for `SendHalf::send`.
    pub async fn send(&self, memory: impl Into<Payload>) -> io::Result<()> {
        self.write.send(memory).await
    }

    /// Returns the receiving half, for what the stream itself does not offer.
    pub fn read_half(&mut self) -> &mut RecvStream {
        &mut self.read
    }

    /// Returns the sending half, for what the stream itself does not offer.
    pub fn write_half(&self) -> &SendHalf {
        &self.write
    }

    /// Splits the stream into halves, which may go to different tasks.
    ///
    /// Dropping the sending half sends the end of the stream behind what is queued.
    ///
    /// ```
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use uring_arena::{FixedArena, tokio::{Pool, Stream}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let (read, write) = pool.stream(near)?.into_split();
    /// let mut stream = Stream::reunite(read, write)?;
    /// stream.write_all(b"hello").await?;
    /// let (read, write) = stream.into_split();
    /// drop(write);
    /// let mut text = String::new();
    /// far.read_to_string(&mut text).await?;
    /// assert_eq!(text, "hello");
    /// # drop(read);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_split(self) -> (RecvStream, SendHalf) {
        (self.read, self.write)
    }

    /// Makes one stream of its two halves. The example of [`into_split`](Self::into_split) shows
    /// it.
    ///
    /// # Errors
    ///
    /// [`ReuniteError`] with both halves, if they are not of one stream.
    #[allow(clippy::result_large_err, reason = "the error gives both halves back")]
    pub fn reunite(read: RecvStream, write: SendHalf) -> Result<Stream, ReuniteError> {
        if read.is_of(&write) {
            Ok(Stream { read, write })
        } else {
            Err(ReuniteError { read, write })
        }
    }

    /// Returns the socket, which no reactor watches any more, and the bytes that were received and
    /// not read.
    ///
    /// ```
    /// use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
    /// use tokio::net::{TcpListener, TcpStream};
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let mut client = TcpStream::connect(listener.local_addr()?).await?;
    /// let mut stream = pool.stream(listener.accept().await?.0)?;
    /// client.write_all(b"first\nsecond").await?;
    /// let mut line = String::new();
    /// stream.read_line(&mut line).await?;
    /// let (socket, unread) = stream.into_inner().await?;
    /// let socket = TcpStream::from_std(socket.into())?;
    /// assert_eq!((&line[..], unread.concat()), ("first\n", b"second".to_vec()));
    /// # drop(socket);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) while sends are queued: [`flush`] first. The error
    /// of the connection, if it failed meanwhile. The connection is closed then, as by a drop, and
    /// so it is if the future is dropped.
    ///
    /// [`flush`]: SendHalf::flush
    pub async fn into_inner(self) -> io::Result<(OwnedFd, Vec<Bytes>)> {
        let Stream { mut read, mut write } = self;
        if !write.is_idle() {
            let text = "sends are queued on the connection: flush it first";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        let received = read.take_received().await?;
        let Some(connection) = read.connection().map(Arc::clone) else {
            return Ok((write.take_socket()?, received));
        };
        write.leave_open();
        drop((read, write));
        // The task that sent the last bytes may be on its way to its end.
        for _ in 0..TURNS_MAX {
            if Arc::strong_count(&connection) == 1 {
                break;
            }
            yield_now().await;
        }
        Ok((connection.into_socket()?, received))
    }

    /// Returns the address of the peer. For TCP.
    ///
    /// ```
    /// use tokio::net::{TcpListener, TcpStream};
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = pool.stream(TcpStream::connect(listener.local_addr()?).await?)?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    /// assert!(stream.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// That of getpeername(2). [`InvalidInput`](io::ErrorKind::InvalidInput) for a Unix socket.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        address_by(self.as_fd(), std::net::TcpStream::peer_addr)
    }

    /// Returns the address of this side. For TCP. The example of [`peer_addr`](Self::peer_addr)
    /// shows it.
    ///
    /// # Errors
    ///
    /// As for `peer_addr`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        address_by(self.as_fd(), std::net::TcpStream::local_addr)
    }

    /// Sets whether short segments go out at once (`TCP_NODELAY`). For TCP.
    ///
    /// ```
    /// use tokio::net::{TcpListener, TcpStream};
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = pool.stream(TcpStream::connect(listener.local_addr()?).await?)?;
    /// stream.set_nodelay(true)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// That of setsockopt(2).
    pub fn set_nodelay(&self, yes: bool) -> io::Result<()> {
        set_no_delay(self.as_fd(), yes)
    }
}

impl futures_core::Stream for Stream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.read).poll_next(context)
    }
}

/// Sends as the sink of [`SendHalf`] does.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::sink::SinkExt;
/// use tokio::io::AsyncReadExt;
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let (near, mut far) = tokio::net::UnixStream::pair()?;
/// let mut stream = pool.stream(near)?;
/// SinkExt::send(&mut stream, Bytes::from_static(b"hello")).await?; // and waits for its memory
/// let mut text = [0; 5];
/// far.read_exact(&mut text).await?;
/// assert_eq!(&text, b"hello");
/// # Ok(())
/// # }
/// ```
impl Sink<Bytes> for Stream {
    type Error = io::Error;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        Pin::new(&mut self.write).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> Result<(), io::Error> {
        Sink::start_send(Pin::new(&mut self.write), bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        Sink::poll_flush(Pin::new(&mut self.write), context)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        Sink::poll_close(Pin::new(&mut self.write), context)
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, room)
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().read).poll_fill_buf(context)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.read).consume(amount);
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.write), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}
