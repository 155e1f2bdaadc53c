//! The pool: an arena, and the engine that receives into it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use ::tokio::runtime::Handle;

use super::engine::{Engine, EngineChoice, NO_RING, PoolError, PoolMetrics, ShutdownReport};
use super::file::File;
use super::readiness::Readiness;
use super::recv_stream::RecvStream;
use super::ring::{self, EngineHandle, RingFile, RingOptions};
use super::send_half::SendHalf;
use super::socket::{Socket, StreamError};
use super::stream::Stream;
use crate::arena::{AllocError, BuddyArena, FixedArena};
use crate::buffer::Buffer;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use crate::driver::DriverBuilder;
use crate::lease::Place;
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};
use crate::sync::{Arc, Mutex};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use crate::uring::BufferRingOptions;

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
    pub(super) engines: Arc<Engines>,
    pub(super) messages_max: usize,
    pub(super) send_bytes_max: usize,
    arena: FixedArena,
}

/// The engines of a pool. That of readiness costs nothing until it is used.
pub(super) struct Engines {
    pub(super) choice: EngineChoice,
    pub(super) readiness: Readiness,
    /// The ring, once something needs it, or why it cannot be.
    ring: OnceLock<Result<Arc<EngineHandle>, String>>,
    /// The options of the ring, until something needs it.
    later: Mutex<Option<RingOptions>>,
}

/// The side of a pool that serves a socket: its runtime or its ring.
pub(super) enum Server<'a> {
    /// The runtime whose reactor watches it.
    Runtime(Handle),
    Ring(&'a Arc<EngineHandle>),
}

impl Engines {
    /// Returns the ring, which starts if it has not yet, unless it cannot be.
    pub(super) fn ring(&self) -> Option<&Arc<EngineHandle>> {
        let start = || {
            let options = self.later.lock().take();
            let options = options.ok_or_else(|| self.choice.reason.clone())?;
            options.start_anywhere().map(Arc::new).map_err(|error| {
                let cause = error.to_string();
                step_down(&cause);
                cause
            })
        };
        self.ring.get_or_init(start).as_ref().ok()
    }
}

/// Tells that files go without io_uring, once a pool.
fn step_down(cause: &str) {
    tracing::warn!(
        cause,
        "the pool reads and writes files on threads for blocking work, without io_uring"
    );
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
    ring: RingOptions,
    messages_max: usize,
    send_bytes_max: usize,
    engine: Engine,
}

impl PoolBuilder {
    /// Adds a buddy arena whose blocks are sent and written from where they lie: messages of any
    /// size.
    ///
    /// A ring registers it, as it does the pool's own arena. Without a ring any memory is sent
    /// alike.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use tokio::io::AsyncReadExt;
    /// use uring_arena::{BuddyArena, FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let frames = BuddyArena::with_sizes(1 << 20, 256).build()?;
    /// let pool =
    ///     Pool::builder(FixedArena::new(64, 4096)?).send_arena(frames.clone()).build()?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let stream = pool.stream(near)?;
    /// let mut frame = frames.allocate_bytes(5)?;
    /// frame.put_slice(b"hello");
    /// stream.send(frame).await?;
    /// let mut text = [0; 5];
    /// far.read_exact(&mut text).await?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_arena(mut self, arena: BuddyArena) -> PoolBuilder {
        self.ring.add_send_arena(arena);
        self
    }

    /// Chooses the engine. Default: [`Engine::Auto`].
    ///
    /// With [`Engine::Ring`] the pool is not built where io_uring cannot be used.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::{Engine, Pool}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// match Pool::builder(FixedArena::new(64, 4096)?).engine(Engine::Ring).build() {
    ///     Ok(pool) => assert_eq!(pool.engine().connections, Engine::Ring),
    ///     Err(error) => eprintln!("no io_uring here: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn engine(mut self, engine: Engine) -> PoolBuilder {
        self.engine = engine;
        self
    }

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
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub fn ring(mut self, ring: BufferRingOptions) -> PoolBuilder {
        self.ring.engine.ring = ring;
        self
    }

    /// Sets the options of the driver. Default: [`Driver::builder`](crate::Driver::builder).
    ///
    /// Its [`operations`](DriverBuilder::operations) are the most connections, reads, writes and
    /// syncs together. Sends have room of their own.
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
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub fn driver(mut self, driver: DriverBuilder) -> PoolBuilder {
        self.ring.engine.driver = driver;
        self
    }

    /// Sets the number of messages that may wait for one stream. Default: 64, or an eighth of the
    /// arena's slots if that is less.
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
    /// Such sends have half of the room; behind them a ring sends without zero-copy. A send of more
    /// bytes waits until it is alone; one of fewer than 64 counts as 64.
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
        self.ring.own_thread = true;
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
        self.ring.batch_scheduling = yes;
        self
    }

    /// Builds the pool.
    ///
    /// A ring is a task of the one-thread runtime that this thread turns, or else has a thread of
    /// its own. A thread turns a runtime inside `block_on`, and so in its tasks. A pool of
    /// [`Engine::Ring`] ends if another thread turns that runtime later.
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
    /// None but for [`Engine::Ring`]. [`PoolError`]: the build has no ring, io_uring is forbidden
    /// or too old, or the system refuses memory or a thread. [`PoolError::OtherThread`] on a thread
    /// that has entered a one-thread runtime and does not turn it, as in `spawn_blocking`:
    /// [`own_thread`](Self::own_thread) serves there.
    ///
    /// # Panics
    ///
    /// With [`Engine::Ring`] inside a one-thread runtime without its I/O enabled.
    pub fn build(self) -> Result<Pool, PoolError> {
        let PoolBuilder { arena, ring: options, messages_max, send_bytes_max, .. } = self;
        let engines = Engines {
            choice: choose(self.engine),
            readiness: Readiness::new(arena.clone(), send_bytes_max),
            ring: OnceLock::new(),
            later: Mutex::new(None),
        };
        match (engines.choice.connections, engines.choice.files) {
            (Engine::Ring, _) => {
                let started = Arc::new(options.start()?);
                engines.ring.get_or_init(|| Ok(started));
            }
            // A connection may ask for one, and then is told why there is none.
            _ if ring::IS_BUILT && engines.choice.files == Engine::Ring => {
                *engines.later.lock() = Some(options);
            }
            _ => {}
        }
        Ok(Pool { engines: Arc::new(engines), messages_max, send_bytes_max, arena })
    }
}

/// Chooses the engines: what was asked for, or else what costs least and is allowed.
fn choose(asked: Engine) -> EngineChoice {
    if asked != Engine::Auto {
        let reason = "it was asked for".into();
        return EngineChoice { connections: asked, files: asked, reason };
    }
    const MEASURED: &str = "a whole server costs least so (docs/design/runtimes.md)";
    let (connections, files) = (Engine::Readiness, Engine::Ring);
    if !ring::IS_BUILT {
        let reason = format!("{MEASURED}, and {NO_RING}");
        return EngineChoice { connections, files: Engine::Readiness, reason };
    }
    match ring::check() {
        Ok(()) => EngineChoice { connections, files, reason: MEASURED.into() },
        Err(cause) => {
            step_down(&cause);
            let reason = format!("{MEASURED}, but files cannot use io_uring: {cause}");
            EngineChoice { connections, files: Engine::Readiness, reason }
        }
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
            ring: RingOptions::new(arena.clone()),
            arena,
            messages_max,
            send_bytes_max: SEND_BYTES_MAX,
            engine: Engine::Auto,
        }
    }

    /// Returns the engines that the pool uses, and why.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::{Engine, Pool}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// if pool.engine().files == Engine::Readiness {
    ///     eprintln!("{}", pool.engine().reason); // what forbids io_uring, and the remedy
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn engine(&self) -> EngineChoice {
        let mut choice = self.engines.choice.clone();
        if choice.files == Engine::Ring
            && let Some(Err(cause)) = self.engines.ring.get()
        {
            choice.files = Engine::Readiness;
            choice.reason = format!("{}, but the ring did not start: {cause}", choice.reason);
        }
        choice
    }

    /// Returns the counts of the pool: connections, streams that wait for slots, bytes to send.
    ///
    /// The counts are of slightly different moments. Each connection is looked at.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, _far) = tokio::net::UnixStream::pair()?;
    /// let stream = pool.stream(near)?;
    /// assert_eq!(pool.metrics().connections, 1);
    /// drop(stream);
    /// assert_eq!(pool.metrics().connections, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn metrics(&self) -> PoolMetrics {
        let mut metrics = PoolMetrics::default();
        if self.engines.readiness.shared().here().is_ok() {
            self.engines.readiness.count(&mut metrics);
        }
        if let Some(Ok(ring)) = self.engines.ring.get() {
            ring.count(&mut metrics);
        }
        metrics
    }

    /// Takes a connection: reads it into slots, and writes to it.
    ///
    /// The example of [`Stream`] shows it. The socket becomes non-blocking, also for its clones.
    ///
    /// # Errors
    ///
    /// [`StreamError`] with the socket: the pool has as many connections as the
    /// [`operations`](crate::DriverBuilder::operations) that its ring was built for, the descriptor
    /// is no stream socket, or there is no tokio runtime here.
    #[allow(clippy::result_large_err, reason = "the error gives the socket back")]
    pub fn stream<S: Socket>(&self, socket: S) -> Result<Stream, StreamError<S>> {
        self.stream_on(self.engines.choice.connections, socket)
    }

    /// Takes a connection as [`stream`](Self::stream) does, on an engine of its own.
    ///
    /// ```
    /// use tokio::io::AsyncWriteExt;
    /// use uring_arena::{FixedArena, tokio::{Engine, Pool}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// let (near, mut far) = tokio::net::UnixStream::pair()?;
    /// let mut stream = pool.stream_on(Engine::Readiness, near)?;
    /// far.write_all(b"hello").await?;
    /// assert_eq!(stream.try_next().await?.unwrap(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for `stream`. [`Unsupported`](io::ErrorKind::Unsupported) if the pool has no ring and
    /// cannot start one.
    #[allow(clippy::result_large_err, reason = "the error gives the socket back")]
    pub fn stream_on<S: Socket>(
        &self,
        engine: Engine,
        socket: S,
    ) -> Result<Stream, StreamError<S>> {
        match self.server(engine) {
            Ok(Server::Runtime(runtime)) => {
                let connection = self.engines.readiness.connect(socket.into_watched()?.0, runtime);
                let read = RecvStream::by_readiness(Arc::clone(&connection));
                Ok(Stream::new(read, SendHalf::by_readiness(connection)))
            }
            Ok(Server::Ring(ring)) => {
                let (messages_max, send_bytes_max) = (self.messages_max, self.send_bytes_max);
                let (source, sender) = ring::connect(ring, socket, messages_max, send_bytes_max)?;
                Ok(Stream::new(RecvStream::on_ring(source), SendHalf::on_ring(sender)))
            }
            Err(error) => Err(StreamError::new(error, socket)),
        }
    }

    /// Returns what serves a new socket by an engine.
    pub(super) fn server(&self, engine: Engine) -> io::Result<Server<'_>> {
        let engine = if engine == Engine::Auto { self.engines.choice.connections } else { engine };
        if engine == Engine::Readiness {
            return Handle::try_current().map(Server::Runtime).map_err(io::Error::other);
        }
        self.engines.ring().map(Server::Ring).ok_or_else(|| {
            let text = format!("the pool has no ring: {}", self.engine());
            io::Error::new(io::ErrorKind::Unsupported, text)
        })
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
    /// An [`io::Error`] of tokio's, if it does not let go of the socket. On a ring
    /// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded), if the pool has as many connections as the
    /// [`operations`](crate::DriverBuilder::operations) that it was built for.
    pub fn recv_stream(&self, socket: impl Socket) -> io::Result<RecvStream> {
        if self.engines.choice.connections == Engine::Ring
            && let Some(ring) = self.engines.ring()
        {
            return Ok(RecvStream::on_ring(ring::receive(ring, socket, self.messages_max)?));
        }
        let (stream, half) = self.stream(socket)?.into_split();
        // The end of the stream is the drop of what is left.
        drop_open(half);
        Ok(stream)
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
        Ok(self.stream(socket)?.into_split())
    }

    /// Takes over a file, to read and write it through the pool.
    ///
    /// The pool owns the descriptor: a program that goes on using the file keeps a clone
    /// (`try_clone`). [`File`] has an example.
    ///
    /// # Errors
    ///
    /// None now; a file that cannot be used gives an error at its first operation.
    #[cfg_attr(
        not(all(feature = "io-uring", target_os = "linux")),
        allow(unreachable_code, reason = "there are no files of a ring")
    )]
    pub fn file(&self, file: impl Into<OwnedFd>) -> io::Result<File> {
        let readiness = &self.engines.readiness;
        if self.engines.choice.files == Engine::Ring
            && readiness.shared().check_open().is_ok()
            && let Some(ring) = self.engines.ring()
        {
            return Ok(File::on_ring(RingFile::new(ring, file.into())));
        }
        Ok(File::blocking(file.into(), Arc::clone(readiness.shared())))
    }

    /// Claims a slot of the arena, and waits for one if none is free.
    ///
    /// Claims are served in order, with all others that wait for the arena. Dropping the future
    /// gives up the place.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// assert_eq!(pool.allocate().await.capacity(), 4096);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate(&self) -> impl Future<Output = Buffer> + '_ {
        let place = Place::here();
        async move {
            match self.arena.try_claim(place) {
                Some(buffer) => buffer,
                None => self.arena.claim_in_order(place).await,
            }
        }
    }

    /// Claims a slot of the arena. Never waits.
    ///
    /// ```
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
    /// assert_eq!(pool.try_allocate()?.capacity(), 4096);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot is free.
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn try_allocate(&self) -> Result<Buffer, AllocError> {
        self.arena.allocate()
    }

    /// Returns the pool's arena.
    pub fn arena(&self) -> &FixedArena {
        &self.arena
    }

    /// Closes the connections, cancels the operations, and waits until the kernel has let go of all
    /// memory: three seconds at most. Blocks no other task.
    ///
    /// The bytes that dropped halves have queued are sent first. A half that is there ends its
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
    pub async fn shutdown(self) -> io::Result<ShutdownReport> {
        let Engines { readiness, ring, .. } = &*self.engines;
        let mut report = readiness.shutdown().await?;
        if let Some(Ok(ring)) = ring.get() {
            report = report.and(ring.shutdown().await?);
        }
        Ok(report)
    }
}

impl HasMetricsPart for Pool {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let (metrics, engine) = (self.metrics(), self.engine());
        let part = MetricsPart::new("pool", name)
            .label("connections_by", format!("{:?}", engine.connections).to_lowercase())
            .label("files_by", format!("{:?}", engine.files).to_lowercase())
            .gauge("uring_arena_pool_connections", "Connections", metrics.connections)
            .gauge(
                "uring_arena_pool_streams_starved",
                "Streams that wait for a slot now",
                metrics.streams_starved,
            )
            .counter(
                "uring_arena_pool_starvations_total",
                "Times that a stream had to wait for a slot",
                metrics.starvations,
            )
            .gauge(
                "uring_arena_pool_streams_paused",
                "Streams that nobody reads, and whose sockets are paused",
                metrics.streams_paused,
            )
            .counter(
                "uring_arena_pool_copied_total",
                "Messages that were copied out of their slots",
                metrics.copied,
            )
            .bytes(
                "uring_arena_pool_send_bytes",
                "Bytes queued to be sent, under way, or reserved",
                metrics.send_bytes,
            )
            .part(self.arena.metrics_part(name));
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        if let Some(Ok(_)) = self.engines.ring.get() {
            return part.part(metrics.driver.add_to(MetricsPart::new("driver", name)));
        }
        part
    }
}

/// Shows the arena, the engines, and the counts of [`metrics`](Pool::metrics).
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("arena", &self.arena)
            .field("engine", &self.engine())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}

/// Drops a half that never was, without an end of the connection.
fn drop_open(mut half: SendHalf) {
    half.leave_open();
}
