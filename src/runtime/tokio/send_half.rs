//! The writing side of a socket, beside the stream that reads.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::AsyncWrite;
use ::tokio::task::coop::poll_proceed;
use bytes::Bytes;

use super::engine::EngineEnd;
use super::readiness::{Connection, send};
use super::ring::RingSender;
use super::send_queue::{Place, SendQueue, drop_contained};
use crate::buffer::Payload;
use crate::sync::Arc;
use crate::system::SendOptions;

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
    sender: Sender,
    /// The place of the write, flush or shutdown that waits.
    place: Place,
    /// The item of a `Sink` that waits for room in the queue.
    unsent: Option<Box<Unsent>>,
    /// The socket goes back to the program: the drop does not end the connection.
    is_left_open: bool,
}

/// A payload that waits for room, at its place in line.
struct Unsent {
    payload: Payload,
    cost: usize,
    place: Place,
}

/// The engine that sends what is queued.
enum Sender {
    /// Boxed: a half of readiness is small, and lies beside the state of its task.
    Ring(Box<RingSender>),
    Readiness(Arc<Connection>),
}

impl Sender {
    /// Fails in a forked child of the pool's process.
    #[inline]
    fn here(&self) -> io::Result<()> {
        match self {
            Sender::Ring(ring) => ring.here(),
            Sender::Readiness(connection) => connection.shared().here(),
        }
    }

    #[inline]
    fn queue(&self) -> &SendQueue {
        match self {
            Sender::Ring(ring) => ring.queue(),
            Sender::Readiness(connection) => connection.queue(),
        }
    }

    /// Queues a send, for which room of `reserved` was taken.
    fn push(&self, payload: Payload, options: SendOptions, reserved: usize) -> io::Result<()> {
        match self {
            Sender::Ring(ring) => ring.push(payload, options, reserved),
            Sender::Readiness(connection) => send(connection, payload, options, reserved),
        }
    }

    /// Writes one or several pieces, once the socket takes bytes.
    fn poll_write(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = match self {
            Sender::Readiness(connection) => connection,
            Sender::Ring(ring) => return ring.poll_write(context, bytes, pieces),
        };
        let socket = connection.socket();
        loop {
            ready!(socket.poll_write_ready(context)).map_err(|_| EngineEnd::Runtime.error())?;
            let written = match pieces.is_empty() {
                true => socket.write(bytes),
                false => socket.write_vectored(pieces),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
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
    pub(super) fn on_ring(sender: RingSender) -> SendHalf {
        let sender = Sender::Ring(Box::new(sender));
        SendHalf { sender, place: None, unsent: None, is_left_open: false }
    }

    pub(super) fn by_readiness(connection: Arc<Connection>) -> SendHalf {
        let sender = Sender::Readiness(connection);
        SendHalf { sender, place: None, unsent: None, is_left_open: false }
    }

    pub(super) fn queue(&self) -> &SendQueue {
        self.sender.queue()
    }

    /// Has the drop of the half end nothing.
    pub(super) fn leave_open(&mut self) {
        self.is_left_open = true;
    }

    /// Returns a descriptor of the connection, which this half has no part in any more.
    pub(super) fn take_socket(&mut self) -> io::Result<OwnedFd> {
        self.leave_open();
        self.sender.queue().detach();
        self.sender.queue().as_fd().try_clone_to_owned()
    }

    /// Returns whether every send is over.
    pub(super) fn is_idle(&self) -> bool {
        self.unsent.is_none() && self.sender.queue().is_idle()
    }

    /// Returns the connection, if tokio's reactor watches it.
    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.sender {
            Sender::Readiness(connection) => Some(connection),
            Sender::Ring(_) => None,
        }
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
    /// if the half or the pool was shut down: every call from then on has the same error.
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
    /// let mut frame = pool.try_allocate()?;
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
        self.sender.here()?;
        let queue = self.sender.queue();
        let cost = queue.cost(bytes);
        let mut line = InLine { queue, place: None, leave: |queue, place| queue.leave_line(place) };
        poll_fn(|context| {
            // A peer that reads without a break keeps no other task from running.
            let budget = ready!(poll_proceed(context));
            let taken = ready!(queue.poll_room(&mut line.place, cost, context));
            budget.made_progress();
            Poll::Ready(taken)
        })
        .await?;
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
    /// let mut frame = pool.try_allocate()?;
    /// frame.put_slice(b"hello");
    /// outgoing.send(frame).await?;
    /// outgoing.flush().await?;
    /// assert_eq!(pool.arena().metrics().bytes_live, live);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> io::Result<()> {
        self.sender.here()?;
        let queue = self.sender.queue();
        let until = queue.end();
        let mut line =
            InLine { queue, place: None, leave: |queue, place| queue.stop_watching(place) };
        poll_fn(|context| queue.poll_over(&mut line.place, until, context)).await
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
        if self.sender.here().is_ok() {
            self.sender.queue().abort();
        }
    }

    /// Queues the item that waits for room, once there is some.
    #[inline]
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.poll_first_unsent(context)
    }

    #[cold]
    fn poll_first_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(unsent) = &mut self.unsent else { return Poll::Ready(Ok(())) };
        let room = self.sender.queue().poll_room(&mut unsent.place, unsent.cost, context);
        let taken = ready!(room);
        let Some(unsent) = self.unsent.take() else { return Poll::Ready(Ok(())) };
        let Unsent { payload, cost, .. } = *unsent;
        if let Err(error) = taken {
            drop_contained(payload);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(self.sender.push(payload, SendOptions::new(), cost))
    }

    /// Queues an item at once if there is room, or takes a place in line for it.
    fn take_item(&mut self, payload: Payload) -> io::Result<()> {
        self.sender.here()?;
        let queue = self.sender.queue();
        let cost = queue.cost(payload.as_ref().len());
        let mut place = None;
        if self.unsent.is_none() && queue.try_room(&mut place, cost)? {
            return self.sender.push(payload, SendOptions::new(), cost);
        }
        debug_assert!(self.unsent.is_none(), "`poll_ready` comes before each item");
        self.unsent = Some(Box::new(Unsent { payload, cost, place }));
        Ok(())
    }

    /// Writes one piece or several, behind what is queued.
    fn poll_write_any(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sender.here()?;
        ready!(self.poll_unsent(context))?;
        let queue = self.sender.queue();
        ready!(queue.poll_turn(&mut self.place, context))?;
        let Poll::Ready(written) = self.sender.poll_write(context, bytes, pieces) else {
            if let Sender::Ring(_) = self.sender {
                // The end of the pool makes no Unix socket writable whose peer does not read.
                ready!(queue.poll_over(&mut self.place, u64::MAX, context))?;
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            return Poll::Pending;
        };
        Poll::Ready(written.map_err(|error| {
            // The end of the pool may be the cause of a broken pipe.
            let refusal = queue.refusal();
            if refusal.is_none() && ends_connection(&error) {
                queue.fail(&error);
            }
            refusal.unwrap_or(error)
        }))
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
        let sender = &self.half.sender;
        sender.here()?;
        sender.push(payload, options, std::mem::take(&mut self.cost))
    }
}

impl Drop for SendPermit<'_> {
    fn drop(&mut self) {
        if self.cost > 0 && self.half.sender.here().is_ok() {
            self.half.sender.queue().give_back(self.cost);
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_any(context, bytes, &[])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_any(context, &[], pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.sender.here()?;
        ready!(this.poll_unsent(context))?;
        let queue = this.sender.queue();
        queue.poll_flushed(&mut this.place, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.sender.here()?;
        ready!(this.poll_unsent(context))?;
        let queue = this.sender.queue();
        queue.close();
        queue.poll_closed(&mut this.place, context)
    }
}

/// Queues each item as [`SendHalf::send`] does, in order with its sends and the writes of tokio's.
///
/// The sink is ready while no item waits for room. So it takes one item more than the queue has
/// room for; that one is queued by any later call. A flush is over when the memory of the items is
/// free, and a close when the end of the stream is out. A half that is dropped sends what it has.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::{SinkExt, StreamExt};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let (near, mut far) = tokio::net::UnixStream::pair()?;
/// let (incoming, mut outgoing) = pool.split(near)?;
/// far.write_all(b"echo").await?;
/// far.shutdown().await?;
/// incoming.forward(&mut outgoing).await?; // and closes it
/// let mut text = String::new();
/// far.read_to_string(&mut text).await?;
/// assert_eq!(text, "echo");
/// # Ok(())
/// # }
/// ```
impl futures_sink::Sink<Bytes> for SendHalf {
    type Error = io::Error;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        self.sender.here()?;
        let budget = ready!(poll_proceed(context));
        ready!(self.poll_unsent(context))?;
        budget.made_progress();
        Poll::Ready(self.sender.queue().refusal().map_or(Ok(()), Err))
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> Result<(), io::Error> {
        self.take_item(bytes.into())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        AsyncWrite::poll_flush(self, context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        AsyncWrite::poll_shutdown(self, context)
    }
}

impl AsFd for SendHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.queue().as_fd()
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.sender.here().is_err() {
            if let Sender::Readiness(connection) = &self.sender {
                // tokio's watch and the connection are the parent's, and so are the locks.
                std::mem::forget(Arc::clone(connection));
            }
            std::mem::forget(self.unsent.take());
            return;
        }
        self.sender.queue().stop_watching(&mut self.place);
        if let Some(unsent) = self.unsent.take() {
            let Unsent { payload, mut place, .. } = *unsent;
            self.sender.queue().leave_line(&mut place);
            // Past the bound: nothing follows it. A connection that has failed takes no more.
            let _ = self.sender.push(payload, SendOptions::new(), 0);
        }
        if let Sender::Readiness(connection) = &self.sender
            && Arc::strong_count(connection) > 1
            && !self.is_left_open
        {
            connection.queue().release();
        }
        // Else closing the socket, which nobody else has, is the end of the stream.
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
