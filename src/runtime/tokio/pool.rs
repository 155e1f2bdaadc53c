//! The pool: an arena, and the engine that receives into it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use ::tokio::net::{TcpStream, UnixStream};
use ::tokio::runtime::{Handle, RuntimeFlavor};

use super::file::File;
use super::recv_stream::RecvStream;
use super::ring::{Command, EngineHandle, EngineOptions, PoolError, TaskEngine, ThreadEngine};
use super::send_half::SendHalf;
use super::send_queue::Reset;
use crate::arena::{AllocError, FixedArena};
use crate::buffer::Buffer;
use crate::driver::{DrainReport, Driver, DriverBuilder};
use crate::sync::Arc;
use crate::uring::{BufferRing, BufferRingOptions};

/// The default of messages that wait for one stream before its socket is paused, if the arena is
/// large.
const MESSAGES_MAX: usize = 64;

/// The default of bytes that are queued to be sent on one connection.
const SEND_BYTES_MAX: usize = 1 << 20;

/// An arena that ordinary tokio receives into, reads files into, and sends from. Clones share it.
///
/// The [module](super) has an overview and an example. A pool ends by
/// [`shutdown`](Self::shutdown), with the runtime that it is a task of, or with the last of its
/// clones, streams, files and halves.
#[derive(Clone)]
pub struct Pool {
    engine: Arc<EngineHandle>,
    messages_max: usize,
    send_bytes_max: usize,
    arena: FixedArena,
}

/// The options of a [`Pool`].
///
/// ```
/// use uring_arena::{BufferRing, Driver, FixedArena, tokio::Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(FixedArena::new(64, 4096)?)
///     .ring(BufferRing::options().entries(32).copy_below(128))
///     .driver(Driver::builder().operations(100_000))
///     .messages_max(16)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    arena: FixedArena,
    ring: BufferRingOptions,
    driver: DriverBuilder,
    messages_max: usize,
    send_bytes_max: usize,
    own_thread: bool,
    batch_scheduling: bool,
}

impl PoolBuilder {
    /// Sets the options of the buffer ring that sockets receive into. Default: half of the arena's
    /// free slots, 1024 at most, lie ready for the kernel.
    ///
    /// ```
    /// use uring_arena::{BufferRing, FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ring = BufferRing::options().entries(32).copy_below(128);
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).ring(ring).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ring(mut self, ring: BufferRingOptions) -> PoolBuilder {
        self.ring = ring;
        self
    }

    /// Sets the options of the driver. Default: [`Driver::builder`].
    ///
    /// Its [`operations`](DriverBuilder::operations) are the most streams, reads and writes
    /// together, and the most halves. Sends have room of their own.
    ///
    /// ```
    /// use uring_arena::{Driver, FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let driver = Driver::builder().operations(100_000);
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).driver(driver).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn driver(mut self, driver: DriverBuilder) -> PoolBuilder {
        self.driver = driver;
        self
    }

    /// Sets the number of messages that may wait for one stream. Default: 64, or an eighth of the
    /// arena's slots if that is less. A message in several slots counts as so many, and a copy of a
    /// short one as one.
    ///
    /// At that number the pool stops receiving from the socket until the stream takes the messages.
    /// The connection fills up meanwhile, and the peer has to wait.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).messages_max(4).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn messages_max(mut self, messages: usize) -> PoolBuilder {
        self.messages_max = messages.max(1);
        self
    }

    /// Sets the number of bytes that are queued to be sent on one connection before
    /// [`send`](SendHalf::send) waits. Default: 1 MiB.
    ///
    /// Bytes count until their memory is free, a zero-copy send until the peer has acknowledged it.
    /// So a connection carries at most this many bytes in a round trip. A send of more bytes waits
    /// until it is alone; one of fewer than 64 counts as 64.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).send_bytes_max(64 << 10).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_bytes_max(mut self, bytes: usize) -> PoolBuilder {
        self.send_bytes_max = bytes.max(1);
        self
    }

    /// Gives the ring a thread of its own in any case, also inside a runtime of one thread.
    ///
    /// For a runtime with tasks that block for long, or one that changing threads drive.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).own_thread().build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn own_thread(mut self) -> PoolBuilder {
        self.own_thread = true;
        self
    }

    /// Runs the pool's own thread as a batch job (`SCHED_BATCH`,
    /// [sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html)). Default: `false`.
    ///
    /// A batch job does not interrupt what runs on a busy core, message by message, but waits for
    /// its turn. The option is for throughput, where cores are few and busy. An idle core runs the
    /// thread at once all the same. Beside a thread that never sleeps, a message may wait for some
    /// milliseconds. A pool without a thread of its own ignores this option.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = Pool::builder(FixedArena::new(64, 4096)?).own_thread();
    /// let pool = builder.batch_scheduling(true).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch_scheduling(mut self, yes: bool) -> PoolBuilder {
        self.batch_scheduling = yes;
        self
    }

    /// Builds the pool: on the one-thread runtime that this thread turns, or else with a thread of
    /// its own.
    ///
    /// A thread turns a runtime inside `block_on`, and so in its tasks. The pool ends if another
    /// thread turns that runtime later.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder(FixedArena::new(64, 4096)?).build()?;
    /// assert_eq!(pool.arena().slot_count(), 64);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PoolError`]: io_uring is forbidden or too old, or the system refuses memory or a thread.
    /// [`PoolError::OtherThread`] on a thread that has entered a one-thread runtime and does not
    /// turn it, as in `spawn_blocking`: [`own_thread`](Self::own_thread) serves there.
    ///
    /// # Panics
    ///
    /// Inside a one-thread runtime without its I/O enabled.
    pub fn build(self) -> Result<Pool, PoolError> {
        let PoolBuilder { arena, ring, driver, messages_max, send_bytes_max, .. } = self;
        let options = EngineOptions { arena: arena.clone(), ring, driver };
        let is_one_thread =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        let engine = match Handle::try_current() {
            Ok(runtime) if is_one_thread(&runtime) && !self.own_thread => {
                TaskEngine::start(options, &runtime)
            }
            _ => ThreadEngine::start(options, self.batch_scheduling),
        }?;
        Ok(Pool { engine: Arc::new(engine), messages_max, send_bytes_max, arena })
    }
}

impl Pool {
    /// Builds a pool over `arena` with the defaults of [`builder`](Self::builder).
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`PoolBuilder::build`].
    ///
    /// # Panics
    ///
    /// As for `PoolBuilder::build`.
    pub fn new(arena: FixedArena) -> Result<Pool, PoolError> {
        Pool::builder(arena).build()
    }

    /// Returns the options of a pool over `arena`: [`PoolBuilder`] has an example.
    pub fn builder(arena: FixedArena) -> PoolBuilder {
        let messages_max = (arena.slot_count() / 8).clamp(1, MESSAGES_MAX);
        PoolBuilder {
            arena,
            // Half of the slots: the others are for files, sends, and bytes that streams hold.
            ring: BufferRing::options(),
            driver: Driver::builder(),
            messages_max,
            send_bytes_max: SEND_BYTES_MAX,
            own_thread: false,
            batch_scheduling: false,
        }
    }

    /// Receives from a socket. Returns its bytes as a stream.
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
    /// assert_eq!(incoming.try_next().await?.unwrap(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`io::Error`] of tokio's, if it does not let go of the socket.
    pub fn recv_stream(&self, socket: impl Socket) -> io::Result<RecvStream> {
        Ok(self.receive(socket.into_fd()?, Reset::default()))
    }

    fn receive(&self, socket: OwnedFd, reset: Reset) -> RecvStream {
        let share = (self.messages_max, self.arena.slot_capacity());
        RecvStream::new(Arc::clone(&self.engine), socket, share, reset)
    }

    /// Receives from a socket, and writes to it.
    ///
    /// ```
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let (mut incoming, mut outgoing) = pool.split(near)?;
    /// far.write_all(b"hello").await?;
    /// let bytes = incoming.try_next().await?.unwrap();
    /// outgoing.write_all(&bytes).await?; // as any `AsyncWrite`
    /// let mut echoed = [0; 5];
    /// far.read_exact(&mut echoed).await?;
    /// assert_eq!(&echoed, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`io::Error`], if the system has no descriptor left, or the pool has as many connections
    /// as the [`operations`](crate::DriverBuilder::operations) that it was built for.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its I/O enabled.
    pub fn split(&self, socket: impl Socket) -> io::Result<(RecvStream, SendHalf)> {
        let socket = socket.into_fd()?;
        let clone = socket.try_clone()?;
        let half = SendHalf::new(Arc::clone(&self.engine), clone, self.send_bytes_max)?;
        Ok((self.receive(socket, half.known_reset().clone()), half))
    }

    /// Takes over a file, to read and write it through the pool.
    ///
    /// The pool owns the descriptor: a program that goes on using the file keeps a clone
    /// (`try_clone`). [`File`] has an example.
    ///
    /// # Errors
    ///
    /// None now; a file that cannot be used gives an error at its first operation.
    pub fn file(&self, file: impl Into<OwnedFd>) -> io::Result<File> {
        Ok(File::new(Arc::clone(&self.engine), file.into()))
    }

    /// Claims a slot of the arena. Never blocks.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// assert_eq!(pool.allocate()?.capacity(), 4096);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot is free.
    pub fn allocate(&self) -> Result<Buffer, AllocError> {
        self.arena.allocate()
    }

    /// Returns the pool's arena.
    pub fn arena(&self) -> &FixedArena {
        &self.arena
    }

    /// Closes the connections, cancels the operations, and waits until the kernel has let go of all
    /// memory: three seconds at most. Blocks no other task.
    ///
    /// What halves that were dropped have queued is sent first. A half that is still there ends its
    /// connection: in order if everything is sent, else by a reset. Streams, halves and operations
    /// that are still there are told [`BrokenPipe`](io::ErrorKind::BrokenPipe). Bytes that were
    /// handed out stay valid.
    ///
    /// The last clone, stream, file and half that is dropped ends the pool as well. Then it waits,
    /// without end, for all that is queued to be sent or written. If the runtime of the pool ends
    /// before, or that of a connection, what is not sent within a fifth of a second is reset.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let report = pool.shutdown().await?;
    /// assert_eq!((report.in_flight, report.quarantined), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down already; an error of
    /// another kind if the kernel does not answer.
    pub async fn shutdown(self) -> io::Result<DrainReport> {
        self.engine.ask(|answer| Command::Shutdown { answer: Some(answer) }).await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("arena", &self.arena).finish_non_exhaustive()
    }
}

/// A socket of tokio that a pool receives from: [`TcpStream`] or [`UnixStream`]. The trait is
/// sealed.
///
/// ```
/// use uring_arena::tokio::Socket;
///
/// fn can_be_received_from<S: Socket>() {}
/// can_be_received_from::<tokio::net::TcpStream>();
/// can_be_received_from::<tokio::net::UnixStream>();
/// ```
pub trait Socket: sealed::IntoFd {}

mod sealed {
    use std::io;
    use std::os::fd::OwnedFd;

    pub trait IntoFd {
        /// Returns the descriptor, which tokio does not watch any more.
        fn into_fd(self) -> io::Result<OwnedFd>;
    }
}

impl Socket for TcpStream {}

impl sealed::IntoFd for TcpStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

impl Socket for UnixStream {}

impl sealed::IntoFd for UnixStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}
