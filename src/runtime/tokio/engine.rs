//! The engines of a pool: which there are, which was chosen and why, and how one ends.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

#[cfg(all(feature = "io-uring", target_os = "linux"))]
use crate::driver::{DrainReport, DriverError, DriverMetrics};
use crate::region::Process;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
use crate::uring::{RegisterError, RingError};

/// The time that a shutdown gives to what halves that are gone have left to send.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The time that a runtime's end gives to what its connections have left to send: a message or two
/// go out meanwhile, and a peer that does not read is not waited for.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(200);

/// The bytes of slots that short messages hold at most while nobody has asked for them: of one
/// stream, or of one datagram socket.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
const SHORT_HOLD_MAX: usize = 64 << 10;

/// The part of a slot up to which a message counts as short.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
const SHORT_PART: usize = 8;

/// Returns whether a message is copied out of its slot, behind `held` others that nobody has asked
/// for: short ones hold little memory.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(super) fn is_worth_a_copy(bytes: usize, slot_bytes: usize, held: usize) -> bool {
    bytes <= slot_bytes / SHORT_PART && (held + 1) * slot_bytes > SHORT_HOLD_MAX
}

/// The way in which a pool moves bytes between the kernel and its slots.
///
/// [`PoolBuilder::engine`](super::PoolBuilder::engine) asks for one, and
/// [`Pool::engine`](super::Pool::engine) says which is used. A connection never changes its engine.
///
/// ```
/// use uring_arena::{FixedArena, tokio::{Engine, Pool}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::builder(FixedArena::new(64, 4096)?).engine(Engine::Readiness).build()?;
/// assert_eq!(pool.engine().connections, Engine::Readiness);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Engine {
    /// The engine that is measured to cost least, as far as it is allowed:
    /// [`Readiness`](Self::Readiness) for connections, and [`Ring`](Self::Ring) for files where
    /// io_uring is allowed.
    #[default]
    Auto,
    /// A ring (io_uring, Linux 5.19) of the pool's own: a task of a one-thread runtime, or a thread
    /// elsewhere.
    Ring,
    /// The reactor of tokio. A socket that is ready takes a slot, and receives into it. Files are
    /// read and written on the threads of tokio for blocking work. No io_uring is used.
    Readiness,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Auto => "auto",
            Engine::Ring => "ring",
            Engine::Readiness => "readiness",
        })
    }
}

/// The engines that a pool uses, and the reason: see [`Pool::engine`](super::Pool::engine).
///
/// ```
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
/// println!("{}", pool.engine());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineChoice {
    /// The engine of connections, unless one asks for another.
    pub connections: Engine,
    /// The engine of files.
    pub files: Engine,
    /// The reason: what was asked for, what was measured, or what forbids io_uring and how to
    /// allow it.
    pub reason: String,
}

/// Writes both engines and the reason.
impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EngineChoice { connections, files, reason } = self;
        write!(f, "connections by {connections}, files by {files}: {reason}")
    }
}

/// An error of [`PoolBuilder::build`](crate::tokio::PoolBuilder::build).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The build has no ring: the feature `io-uring` is off, or the system is not Linux.
    #[error("{NO_RING}")]
    NoRing,
    /// The system gave no io_uring.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The kernel did not take the arena for receiving.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel did not register the arena.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The system gave no descriptor, or tokio did not watch the descriptor.
    #[error(
        "no event descriptor for the pool ({0}): raise the limit of descriptors (`ulimit -n`), or build the pool with `own_thread`"
    )]
    Event(io::Error),
    /// The system did not start the pool's thread.
    #[error(
        "the pool's thread did not start ({0}): raise the limit of threads (`ulimit -u`), or build the pool inside a one-thread runtime"
    )]
    Thread(io::Error),
    /// The one-thread runtime that this thread has entered is not turned by this thread.
    #[error(
        "this thread has entered a one-thread runtime that it does not turn, as in `spawn_blocking` or beside `Handle::enter`: build the pool in a task of the runtime or inside its `block_on`, or with `own_thread`"
    )]
    OtherThread,
}

debug_is_display!(PoolError);
into_io_error!(PoolError);

impl PoolError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            PoolError::Driver(error) => error.kind(),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            PoolError::Ring(error) => error.kind(),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            PoolError::Register(error) => error.kind(),
            PoolError::Event(error) | PoolError::Thread(error) => error.kind(),
            PoolError::OtherThread | PoolError::NoRing => io::ErrorKind::Unsupported,
        }
    }
}

/// The reason why a build has no ring.
pub(super) const NO_RING: &str =
    "this build has no ring: turn the feature `io-uring` of uring-arena on, on Linux";

/// The result of [`Pool::shutdown`](super::Pool::shutdown).
///
/// ```
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 4096)?)?;
/// let report = pool.shutdown().await?;
/// assert_eq!((report.closed, report.in_flight, report.quarantined), (0, 0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The connections that were closed.
    pub closed: usize,
    /// The bytes that came in and were not taken.
    pub discarded_bytes: u64,
    /// The operations that are still under way: none if all is well.
    pub in_flight: usize,
    /// The slots that are lost if these operations never end.
    pub quarantined: usize,
}

impl ShutdownReport {
    /// Adds what the other engine of the pool reports.
    pub(super) fn and(mut self, other: ShutdownReport) -> ShutdownReport {
        self.closed += other.closed;
        self.discarded_bytes += other.discarded_bytes;
        self.in_flight += other.in_flight;
        self.quarantined += other.quarantined;
        self
    }
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
impl From<DrainReport> for ShutdownReport {
    fn from(report: DrainReport) -> ShutdownReport {
        let DrainReport { closed, discarded_bytes, in_flight, quarantined, .. } = report;
        ShutdownReport { closed, discarded_bytes, in_flight, quarantined }
    }
}

/// The state of a pool at a moment: see [`Pool::metrics`](super::Pool::metrics).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// The connections that the pool has, on either engine. Streams of
    /// [`recv_stream`](super::Pool::recv_stream) on a ring are not counted.
    pub connections: usize,
    /// The datagram sockets that the pool has, on either engine.
    pub datagram_sockets: usize,
    /// The streams that wait for a slot.
    pub streams_starved: usize,
    /// The number of times that a stream had to wait for a slot.
    pub starvations: u64,
    /// The streams of [`Engine::Ring`] that nobody reads, and whose sockets are paused.
    pub streams_paused: usize,
    /// The messages of [`Engine::Ring`] that were copied out of their slots: short ones, and those
    /// of streams that nobody reads. The other engine copies none.
    pub copied: u64,
    /// The bytes that are queued to be sent, under way, or reserved for sends.
    pub send_bytes: usize,
    /// The counters of the ring's driver, as of its last turn; all zero without a ring. Needs the
    /// feature `io-uring`.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub driver: DriverMetrics,
}

/// The least time between two warnings of starvation.
const WARNINGS_EVERY: Duration = Duration::from_secs(10);

/// The waits of streams for slots, as the log tells of them: when they begin, at most every ten
/// seconds, and the end of what was told.
#[derive(Debug, Default)]
pub(super) struct Starvation {
    told: Option<Instant>,
    is_told: bool,
}

impl Starvation {
    /// Notes that a stream waits, if `is_so` confirms it. Returns whether the log is to tell.
    pub(super) fn begin(&mut self, is_so: impl FnOnce() -> bool) -> bool {
        let is_recent = |at: Instant| at.elapsed() < WARNINGS_EVERY;
        if self.is_told || self.told.is_some_and(is_recent) || !is_so() {
            return false;
        }
        self.told = Some(Instant::now());
        self.is_told = true;
        true
    }

    /// Notes that no stream waits any more. Returns the time since the begin that the log has told
    /// of, if it is to tell.
    pub(super) fn end(&mut self) -> Option<Duration> {
        let began = self.told.filter(|_| std::mem::take(&mut self.is_told))?;
        Some(began.elapsed())
    }
}

/// Warns that streams of a pool with so many slots wait. Calls the program's subscriber.
#[cold]
pub(super) fn tell_starvation(slots: usize) {
    tracing::warn!(
        slots,
        "streams wait for slots, because all are in use: drop received bytes sooner, copy what is kept, or build the arena with more slots"
    );
}

/// Tells that the wait is over. Calls the program's subscriber.
#[cold]
pub(super) fn tell_end_of_starvation(slots: usize, lasted: Duration) {
    tracing::info!(slots, ?lasted, "no stream waits for a slot any more");
}

/// The reason why an engine does nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineEnd {
    ShutDown,
    /// The driver could not go on.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Failed(DriverError),
    /// The runtime, of one thread, went on on another thread.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Moved,
    /// The runtime ended that the engine is a task of, or that a connection was made in.
    Runtime,
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    Panicked,
}

impl EngineEnd {
    /// Returns the error of everything that is asked for after this end.
    pub(super) fn error(self) -> io::Error {
        let broken = |text| io::Error::new(io::ErrorKind::BrokenPipe, text);
        match self {
            EngineEnd::ShutDown => broken("the pool was shut down"),
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            EngineEnd::Failed(error) => {
                let kind = io::Error::from(error).kind();
                io::Error::new(kind, format!("the pool has failed, and ended: {error}"))
            }
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            EngineEnd::Moved => broken(
                "the pool has ended, because its runtime of one thread went on on another thread: build it with `own_thread`",
            ),
            EngineEnd::Runtime => {
                broken("the runtime of the pool, or of the connection, has ended")
            }
            #[cfg(all(feature = "io-uring", target_os = "linux"))]
            EngineEnd::Panicked => {
                broken("the pool has ended, because its engine panicked: the panic was told before")
            }
        }
    }
}

/// Logs the refusal of a change to a socket. It is closed already, or the kernel refuses to go on,
/// which the next turn sees.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(super) fn log_refusal(result: Result<(), DriverError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "nothing to do for a socket of the pool");
    }
}

/// Fails in a forked child of the process that a pool is of.
#[inline]
pub(super) fn check_process(process: Process) -> io::Result<()> {
    match process.other() {
        None => Ok(()),
        Some((of, to)) => Err(other_process(of, to)),
    }
}

#[cold]
fn other_process(of: u32, to: u32) -> io::Error {
    let text = format!(
        "this pool is of process {of}, and was used in its forked child {to}: its connections are not the child's; build a pool there"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
