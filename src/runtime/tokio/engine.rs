//! The engines of a pool: which there are, which was chosen and why, and how one ends.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::driver::{DriverError, DriverMetrics};

/// The time that a shutdown gives to what halves that are gone have left to send.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The time that a runtime's end gives to what its connections have left to send: a message or two
/// go out meanwhile, and a peer that does not read is not waited for.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(200);

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

/// The state of a pool at a moment: see [`Pool::metrics`](super::Pool::metrics).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// The connections that the pool has, on either engine. Streams of
    /// [`recv_stream`](super::Pool::recv_stream) on a ring are not counted.
    pub connections: usize,
    /// The streams of [`Engine::Readiness`] that wait for a slot.
    pub streams_starved: usize,
    /// The number of times that such a stream had to wait.
    pub starvations: u64,
    /// The bytes that are queued to be sent, under way, or reserved for sends.
    pub send_bytes: usize,
    /// The counters of the ring's driver, as of its last turn; all zero without a ring.
    pub driver: DriverMetrics,
}

/// The reason why an engine does nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineEnd {
    ShutDown,
    /// The driver could not go on.
    Failed(DriverError),
    /// The runtime, of one thread, went on on another thread.
    Moved,
    /// The runtime ended that the engine is a task of, or that a connection was made in.
    Runtime,
    Panicked,
}

impl EngineEnd {
    /// Returns the error of everything that is asked for after this end.
    pub(super) fn error(self) -> io::Error {
        let broken = |text| io::Error::new(io::ErrorKind::BrokenPipe, text);
        match self {
            EngineEnd::ShutDown => broken("the pool was shut down"),
            EngineEnd::Failed(error) => {
                let kind = io::Error::from(error).kind();
                io::Error::new(kind, format!("the pool has failed, and ended: {error}"))
            }
            EngineEnd::Moved => broken(
                "the pool has ended, because its runtime of one thread went on on another thread: build it with `own_thread`",
            ),
            EngineEnd::Runtime => {
                broken("the runtime of the pool, or of the connection, has ended")
            }
            EngineEnd::Panicked => {
                broken("the pool has ended, because its engine panicked: the panic was told before")
            }
        }
    }
}
