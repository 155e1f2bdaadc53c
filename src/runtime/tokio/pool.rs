//! The pool: an arena, a ring, and what turns it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use ::tokio::runtime::{Handle, RuntimeFlavor};
use ::tokio::sync::oneshot;

use super::ring::engine::{Task, Turner};
use super::ring::mailbox::{Command, Mailbox, is_shut_down};
use super::scheduling;
use super::socket::Socket;
use super::{File, RecvStream, SendHalf};
use crate::arena::FixedArena;
use crate::buffer::Buffer;
use crate::driver::{BufferRingId, DrainReport, Driver, DriverBuilder};
use crate::error::{AllocError, DriverError, RegisterError, RingError};
use crate::sync::Arc;
use crate::uring::{BufferRing, BufferRingOptions};

/// Messages that wait for one stream before its socket is paused, if the arena is large.
const MESSAGES_MAX: usize = 64;

/// Slots that lie ready for the kernel at most, if nobody says otherwise.
const ENTRIES_MAX: usize = 1024;

/// An arena that ordinary tokio receives into, reads files into, and sends from. Clones share it.
///
/// See the [module](super) for what it does. It ends when the last clone, stream, file and half is
/// dropped, or by [`shutdown`](Self::shutdown), or with the runtime that it is a task of.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What the pool and everything made from it share. The engine ends with it.
pub(super) struct Shared {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) messages_max: usize,
    arena: FixedArena,
}

/// A pool that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no io_uring to be had.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The kernel would not take the arena for receiving.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel would not say what it can do.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The system would not give a descriptor, or tokio would not watch it.
    #[error("no event descriptor for the pool")]
    Event(#[source] io::Error),
    /// The system would not start the pool's thread.
    #[error("the pool's thread could not be started")]
    Thread(#[source] io::Error),
}

/// How a [`Pool`] shall be.
///
/// ```
/// # use std::num::NonZeroUsize;
/// use uring_arena::{BufferRing, Driver, FixedArena, tokio::Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
/// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
/// let pool = Pool::builder(arena)
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
    own_thread: bool,
    batch_scheduling: bool,
}

impl PoolBuilder {
    /// How sockets receive into the arena. Default: half of its slots, 1024 at most, lie ready for
    /// the kernel.
    pub fn ring(mut self, ring: BufferRingOptions) -> PoolBuilder {
        self.ring = ring;
        self
    }

    /// How the ring shall be. Default: [`Driver::builder`].
    pub fn driver(mut self, driver: DriverBuilder) -> PoolBuilder {
        self.driver = driver;
        self
    }

    /// Messages that may wait for one stream; then its socket is paused until the stream takes
    /// them, and the peer feels it. Default: 64, or an eighth of the arena's slots if that is less.
    pub fn messages_max(mut self, messages: usize) -> PoolBuilder {
        self.messages_max = messages.max(1);
        self
    }

    /// Gives the ring a thread of its own in any case, also inside a runtime of one thread: where
    /// tasks block for long, or where the runtime is driven by changing threads.
    pub fn own_thread(mut self) -> PoolBuilder {
        self.own_thread = true;
        self
    }

    /// Has the pool's own thread run as a batch job (`SCHED_BATCH`,
    /// [sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html)): when something arrives
    /// while its core is busy, it lets what runs there finish its turn, instead of interrupting it
    /// message by message.
    ///
    /// For throughput, where cores are few and busy. A core that is idle takes the thread at once
    /// all the same; but beside something that never sleeps, a message may wait for some
    /// milliseconds. Without a thread of its own the pool has nothing to schedule, and this does
    /// nothing.
    pub fn batch_scheduling(mut self, yes: bool) -> PoolBuilder {
        self.batch_scheduling = yes;
        self
    }

    /// Makes the pool: on the runtime of one thread that this thread is in, or with a thread of its
    /// own.
    ///
    /// # Errors
    ///
    /// [`PoolError`]: io_uring is forbidden or too old, or the system refuses memory or a thread.
    ///
    /// # Panics
    ///
    /// Inside a runtime of one thread whose I/O is not enabled.
    pub fn build(self) -> Result<Pool, PoolError> {
        let is_on_one_thread =
            |handle: &Handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        match Handle::try_current() {
            Ok(handle) if is_on_one_thread(&handle) && !self.own_thread => self.build_task(&handle),
            _ => self.build_thread(),
        }
    }

    fn build_task(self, runtime: &Handle) -> Result<Pool, PoolError> {
        let PoolBuilder { arena, ring, driver, messages_max, .. } = self;
        let (driver, ring) = start(driver, &arena, ring)?;
        let task = Task::new(driver, ring)?;
        let mailbox = task.mailbox();
        runtime.spawn(task);
        Ok(Pool { shared: Arc::new(Shared { mailbox, messages_max, arena }) })
    }

    fn build_thread(self) -> Result<Pool, PoolError> {
        let PoolBuilder { arena, ring, driver, messages_max, batch_scheduling, .. } = self;
        let (told, ready) = mpsc::sync_channel(1);
        let receiving = arena.clone();
        let body = move || {
            if batch_scheduling && let Err(error) = scheduling::run_as_batch() {
                tracing::warn!(%error, "the pool's thread is scheduled like any other");
            }
            let turner = start(driver, &receiving, ring)
                .and_then(|(driver, ring)| Turner::new(driver, ring));
            drop(receiving);
            match turner {
                Ok(turner) if told.send(Ok(turner.mailbox())).is_ok() => turner.run(),
                Ok(_) => {}
                Err(error) => drop(told.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("uring-arena".into());
        thread.spawn(body).map_err(PoolError::Thread)?;
        let died = || PoolError::Thread(io::Error::other("it ended before it began"));
        let mailbox = ready.recv().map_err(|_| died())??;
        Ok(Pool { shared: Arc::new(Shared { mailbox, messages_max, arena }) })
    }
}

/// Makes the driver, on the thread that will turn it.
fn start(
    driver: DriverBuilder,
    arena: &FixedArena,
    options: BufferRingOptions,
) -> Result<(Driver, BufferRingId), PoolError> {
    let mut driver = driver.build()?;
    let ring = driver.register_buffer_ring(arena, options)?;
    driver.register(arena)?;
    Ok((driver, ring))
}

impl Pool {
    /// A pool over `arena`, with the defaults of [`builder`](Self::builder).
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

    /// Begins a pool over `arena`.
    pub fn builder(arena: FixedArena) -> PoolBuilder {
        let messages_max = (arena.slot_count() / 8).clamp(1, MESSAGES_MAX);
        // The other half is for files, sends, and what streams hold.
        let entries = 1 << (arena.slot_count() / 2).clamp(1, ENTRIES_MAX).ilog2();
        let ring = BufferRing::options().entries(entries);
        PoolBuilder {
            arena,
            ring,
            driver: Driver::builder(),
            messages_max,
            own_thread: false,
            batch_scheduling: false,
        }
    }

    /// Receives from a socket: its bytes as a stream.
    ///
    /// # Errors
    ///
    /// If tokio does not let go of the socket.
    pub fn recv_stream(&self, socket: impl Socket) -> io::Result<RecvStream> {
        let socket = socket.into_plain()?;
        Ok(RecvStream::new(Arc::clone(&self.shared), socket.into()))
    }

    /// Receives from a socket, and writes to it.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its I/O enabled.
    pub fn split(&self, socket: impl Socket) -> io::Result<(RecvStream, SendHalf)> {
        let socket = socket.into_plain()?;
        let half = SendHalf::new(Arc::clone(&self.shared), socket.try_clone()?)?;
        Ok((RecvStream::new(Arc::clone(&self.shared), socket.into()), half))
    }

    /// A file to read and write through the pool. The pool owns it: keep a clone (`try_clone`) of
    /// what you go on using.
    ///
    /// # Errors
    ///
    /// None now; a file that cannot be used says so at its first operation.
    pub fn file(&self, file: impl Into<OwnedFd>) -> io::Result<File> {
        Ok(File::new(Arc::clone(&self.shared), file.into()))
    }

    /// Claims a slot of the arena; never blocks.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot is free.
    pub fn allocate(&self) -> Result<Buffer, AllocError> {
        self.shared.arena.allocate()
    }

    /// The pool's arena.
    pub fn arena(&self) -> &FixedArena {
        &self.shared.arena
    }

    /// Ends everything in good order: sockets are closed, what is under way is cancelled, and the
    /// kernel lets go of all memory. Streams and operations that are still there end with
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe). Bytes that were handed out stay valid.
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down already.
    pub async fn shutdown(self) -> io::Result<DrainReport> {
        let (answer, answered) = oneshot::channel();
        self.shared.mailbox.post(Command::Shutdown { answer: Some(answer) });
        answered.await.map_err(|_| is_shut_down())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mailbox.post(Command::Shutdown { answer: None });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("arena", &self.shared.arena).finish_non_exhaustive()
    }
}
