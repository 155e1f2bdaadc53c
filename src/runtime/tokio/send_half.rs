//! The writing side of a socket, beside the stream that reads.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncWrite, Interest};
use ::tokio::runtime::Handle;

use super::ring::{Command, EngineHandle, FileKey};
use super::send_queue::{Place, Reset, SendQueue};
use crate::buffer::Payload;
use crate::sync::Arc;
use crate::uring::SendOptions;

/// The writing side of a socket: sends of memory where it lies, zero-copy from the pool's arena;
/// and an `AsyncWrite`.
///
/// Bytes go out in the order in which they were queued or written. What is queued goes out whole,
/// whatever is dropped; if that cannot be, the peer sees a reset, and the next call an error.
///
/// | | what the peer sees |
/// |---|---|
/// | the half is dropped, or shut down as an `AsyncWrite` | what is queued, then the end |
/// | [`abort`](Self::abort) | a reset |
/// | the pool or the runtime ends with something left to send | a reset |
/// | the pool ends with nothing left to send | the end |
///
/// A connection without resets (Unix) ends in both directions in place of a reset. Once the half is
/// gone, a TCP peer that takes nothing for a minute loses the rest. Dropping the
/// [`RecvStream`](super::RecvStream) ends nothing while the half is there.
///
/// ```
/// use bytes::Bytes;
/// use tokio::io::AsyncReadExt;
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let (near, mut far) = tokio::net::UnixStream::pair()?;
/// let (_incoming, outgoing) = pool.split(near)?;
/// outgoing.send(Bytes::from_static(b"hello ")).await?;
/// outgoing.send(Bytes::from_static(b"world")).await?;
/// drop(outgoing);
/// let mut text = String::new();
/// far.read_to_string(&mut text).await?;
/// assert_eq!(text, "hello world");
/// # Ok(())
/// # }
/// ```
pub struct SendHalf {
    /// The queue's descriptor, watched for writing only: arriving bytes wake no task. `None` once
    /// the half is dropped.
    watched: Option<AsyncFd<Watched>>,
    queue: Arc<SendQueue>,
    engine: Arc<EngineHandle>,
    key: FileKey,
    /// Set once the engine has a clone of the socket, which it gets for the first send.
    introduced: OnceLock<()>,
    /// The place of the write, flush or shutdown that waits.
    place: Place,
}

/// The queue of a half, as the descriptor that tokio watches.
struct Watched(Arc<SendQueue>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket().as_raw_fd()
    }
}

/// The room of one send in the queue of a [`SendHalf`]. Dropping it gives the room back.
///
/// ```
/// use bytes::Bytes;
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let (near, _far) = tokio::net::UnixStream::pair()?;
/// let (_incoming, outgoing) = pool.split(near)?;
/// let permit = outgoing.reserve(5).await?;
/// permit.send(Bytes::from_static(b"hello"))?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a permit that is dropped gives its room back"]
pub struct SendPermit<'a> {
    half: &'a SendHalf,
    bytes: usize,
    /// The room that was taken; none once it is used.
    cost: usize,
}

/// The place of a task in a list of the queue: given up when the task's future is dropped.
struct InLine<'a> {
    queue: &'a SendQueue,
    place: Place,
    leave: fn(&SendQueue, &mut Place),
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            (self.leave)(self.queue, &mut self.place);
        }
    }
}

impl SendHalf {
    pub(super) fn new(
        engine: Arc<EngineHandle>,
        socket: OwnedFd,
        bytes_max: usize,
    ) -> io::Result<SendHalf> {
        let queue = Arc::new(SendQueue::new(socket, bytes_max));
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let watched = AsyncFd::with_interest(Watched(Arc::clone(&queue)), Interest::WRITABLE)?;
        let key = engine.register(&queue, &Handle::current())?;
        Ok(SendHalf {
            watched: Some(watched),
            queue,
            engine,
            key,
            introduced: OnceLock::new(),
            place: None,
        })
    }

    pub(super) fn known_reset(&self) -> &Reset {
        self.queue.known_reset()
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes), all of it,
    /// from where it lies.
    ///
    /// The future is ready when the bytes are queued, behind those that were queued before. It
    /// waits while the queue holds its [most bytes](super::PoolBuilder::send_bytes_max); tasks that
    /// wait are served in order. A future that is dropped before it was ready has queued nothing.
    /// Once it is ready, nothing but [`abort`](Self::abort) takes the bytes back.
    ///
    /// Memory of the pool's arena is sent zero-copy from [`SendOptions::ZERO_COPY_FROM`] bytes on.
    /// [`flush`](Self::flush) waits until memory is free.
    ///
    /// # Errors
    ///
    /// The error of an earlier send, of the socket, or [`BrokenPipe`](io::ErrorKind::BrokenPipe)
    /// if the half or the pool was shut down: every call from then on has the same error. An error
    /// of a missing descriptor (`EMFILE`) is passing: the connection goes on without this send.
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
    /// let (_incoming, outgoing) = pool.split(near)?;
    /// let mut frame = pool.allocate()?;
    /// frame.put_slice(b"hello");
    /// outgoing.send(frame.freeze()).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, memory: impl Into<Payload>) -> io::Result<()> {
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
    /// let (_incoming, outgoing) = pool.split(near)?;
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
        &self,
        memory: impl Into<Payload>,
        options: SendOptions,
    ) -> io::Result<()> {
        let payload = memory.into();
        self.reserve(payload.as_ref().len()).await?.send_with(payload, options)
    }

    /// Waits for room for a send of `bytes` bytes. Then [`SendPermit::send`] queues it without
    /// waiting.
    ///
    /// Tasks that wait for room are served in order, with those that [`send`](Self::send). A
    /// future or a permit that is dropped gives its place or its room to the next one.
    ///
    /// # Errors
    ///
    /// As for `send`.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut outbox = std::collections::VecDeque::from([Bytes::from_static(b"hello")]);
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let (near, _far) = tokio::net::UnixStream::pair()?;
    /// let (_incoming, outgoing) = pool.split(near)?;
    /// // A message leaves the outbox in the moment in which it is queued.
    /// while let Some(next) = outbox.front() {
    ///     let permit = outgoing.reserve(next.len()).await?;
    ///     permit.send(outbox.pop_front().unwrap())?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reserve(&self, bytes: usize) -> io::Result<SendPermit<'_>> {
        self.engine.here()?;
        let cost = self.queue.cost(bytes);
        let mut line = InLine {
            queue: &self.queue,
            place: None,
            leave: |queue, place| queue.leave_line(place),
        };
        poll_fn(|context| self.queue.poll_room(&mut line.place, cost, context)).await?;
        Ok(SendPermit { half: self, bytes, cost })
    }

    /// Waits until everything that was queued before is sent and its memory is free: for a
    /// zero-copy send, until the peer has acknowledged it.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let (near, _far) = tokio::net::UnixStream::pair()?;
    /// let (_incoming, outgoing) = pool.split(near)?;
    /// let live = pool.arena().metrics().bytes_live;
    /// let mut frame = pool.allocate()?;
    /// frame.put_slice(b"hello");
    /// outgoing.send(frame).await?;
    /// outgoing.flush().await?;
    /// assert_eq!(pool.arena().metrics().bytes_live, live);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> io::Result<()> {
        self.engine.here()?;
        let until = self.queue.end();
        let mut line = InLine {
            queue: &self.queue,
            place: None,
            leave: |queue, place| queue.stop_watching(place),
        };
        poll_fn(|context| self.queue.poll_over(&mut line.place, until, context)).await
    }

    /// Resets the connection, in both directions and for every clone of the socket. What is queued
    /// is dropped, and later calls fail with
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted).
    ///
    /// A connection without resets (Unix) is shut down in both directions.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use bytes::Bytes;
    /// use tokio::io::AsyncReadExt;
    /// use tokio::net::{TcpListener, TcpStream};
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let mut far = TcpStream::connect(listener.local_addr()?).await?;
    /// let (_incoming, outgoing) = pool.split(listener.accept().await?.0)?;
    /// outgoing.abort();
    /// let error = outgoing.send(Bytes::from_static(b"late")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    /// let error = far.read(&mut [0; 5]).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&self) {
        // In a forked child the connection is the parent's.
        if self.engine.here().is_ok() {
            self.queue.abort();
        }
    }

    /// Gives the engine a clone of the socket, unless it has one.
    fn introduce(&self) -> io::Result<()> {
        if self.introduced.get().is_some() {
            return Ok(());
        }
        let socket = self.queue.socket().try_clone()?.into();
        // Another task's command may overtake this one: it finds no sender, and the engine looks
        // into the queue when it gets to know it.
        if self.introduced.set(()).is_ok() {
            let queue = Arc::clone(&self.queue);
            self.engine.post(Command::OpenSocket { key: self.key, socket, queue });
        }
        Ok(())
    }

    /// Waits until a write may follow what is queued.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.engine.here()?;
        if let Some(refusal) = self.queue.refusal() {
            return Poll::Ready(Err(refusal));
        }
        let until = self.queue.end();
        self.queue.poll_over(&mut self.place, until, context)
    }

    /// Writes by `write` once the socket takes bytes.
    fn poll_write_by(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut &std::net::TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context))?;
        let watched = self.watched.as_ref().expect("there until the drop");
        loop {
            let Poll::Ready(ready) = watched.poll_write_ready(context) else {
                // The end of the pool makes no Unix socket writable whose peer does not read.
                ready!(self.queue.poll_over(&mut self.place, u64::MAX, context))?;
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let mut ready = ready?;
            match ready.try_io(|watched| write(&mut watched.get_ref().0.socket())) {
                Ok(Err(error)) => {
                    // The end of the pool may be the cause of a broken pipe.
                    let refusal = self.queue.refusal();
                    if refusal.is_none() && ends_connection(&error) {
                        self.queue.fail(&error);
                    }
                    return Poll::Ready(Err(refusal.unwrap_or(error)));
                }
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

/// Returns whether nothing can be sent any more after this error of a write.
fn ends_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    let kind = error.kind();
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

impl SendPermit<'_> {
    /// Queues a send of at most the bytes that were reserved. Waits for nothing.
    ///
    /// # Errors
    ///
    /// As for [`SendHalf::send`]; [`InvalidInput`](io::ErrorKind::InvalidInput) for more bytes than
    /// were reserved. Nothing is queued then.
    pub fn send(self, memory: impl Into<Payload>) -> io::Result<()> {
        self.send_with(memory, SendOptions::new())
    }

    /// Queues a send as [`send`](Self::send) does, with another threshold for zero-copy.
    ///
    /// # Errors
    ///
    /// As for `send`.
    pub fn send_with(mut self, memory: impl Into<Payload>, options: SendOptions) -> io::Result<()> {
        let payload = memory.into();
        let (len, reserved) = (payload.as_ref().len(), self.bytes);
        if len > reserved {
            let text =
                format!("a send of {len} bytes needs as much room; {reserved} were reserved");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let half = self.half;
        half.engine.here()?;
        if len > 0 {
            half.introduce()?;
        }
        let must_tell = half.queue.push(payload, options, std::mem::take(&mut self.cost))?;
        if must_tell {
            half.engine.post(Command::Send { key: half.key });
        }
        Ok(())
    }
}

impl Drop for SendPermit<'_> {
    fn drop(&mut self) {
        if self.cost > 0 && self.half.engine.here().is_ok() {
            self.half.queue.give_back(self.cost);
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |socket| socket.write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.engine.here()?;
        this.queue.poll_over(&mut this.place, this.queue.end(), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.engine.here()?;
        this.queue.close();
        this.queue.poll_closed(&mut this.place, context)
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.engine.here().is_err() {
            // tokio's watch and the connection are the parent's, and so are the locks.
            std::mem::forget((self.watched.take(), Arc::clone(&self.queue)));
            return;
        }
        self.queue.stop_watching(&mut self.place);
        self.queue.release();
        self.engine.release(self.key, self.introduced.get().is_some());
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf").finish_non_exhaustive()
    }
}

impl fmt::Debug for SendPermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPermit").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
