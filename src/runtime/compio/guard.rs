//! The guard of a compio runtime.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::thread::LocalKey;

use compio_runtime::Runtime;

use crate::runtime::liveness::{Guard, Guards, RuntimeLiveness};
use crate::uring::{RegisterError, RingError};

thread_local! {
    static GUARDS: Guards<RuntimeGuard> = const { RefCell::new(Vec::new()) };
}

/// An arena that could not be attached to a compio runtime.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No compio runtime runs on this thread.
    #[error(
        "no compio runtime is running on this thread: call this inside `block_on`, on the runtime's thread"
    )]
    NotInRuntime,
    /// The runtime is driven by epoll.
    #[error(
        "this compio runtime is not on io_uring: build compio without its `polling` feature, or ask for DriverType::IoUring"
    )]
    NotOnUring,
    /// The kernel did not register the arena.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The kernel did not register the buffer ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

debug_is_display!(AttachError);
into_io_error!(AttachError);

impl AttachError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            AttachError::NotInRuntime => io::ErrorKind::InvalidInput,
            AttachError::NotOnUring => io::ErrorKind::Unsupported,
            AttachError::Register(error) => error.kind(),
            AttachError::Ring(error) => error.kind(),
        }
    }
}

/// One runtime, by the descriptor of its ring.
///
/// A descriptor's number may be given out again, so it names the runtime while the liveness lasts
/// only.
pub(super) struct RuntimeGuard {
    ring: RawFd,
    liveness: Rc<RuntimeLiveness>,
}

impl RuntimeGuard {
    /// Returns the guard of the runtime that this thread is in; starts it if need be.
    pub(super) fn current() -> Result<Rc<RuntimeGuard>, AttachError> {
        let ring_of = |runtime: &Runtime| (runtime.as_raw_fd(), runtime.driver_type().is_iouring());
        let (ring, is_uring) =
            Runtime::try_with_current(ring_of).map_err(|_| AttachError::NotInRuntime)?;
        if !is_uring {
            return Err(AttachError::NotOnUring);
        }
        let known = RuntimeGuard::find(|guard| guard.ring == ring);
        Ok(known.unwrap_or_else(|| {
            let (guard, task) =
                Guard::start(RuntimeGuard { ring, liveness: RuntimeLiveness::new() });
            compio_runtime::spawn(task).detach();
            guard
        }))
    }

    /// Returns `true` if this thread is in the guard's runtime.
    pub(super) fn is_here(&self) -> bool {
        self.liveness.is_alive()
            && Runtime::try_with_current(|runtime| runtime.as_raw_fd())
                .is_ok_and(|ring| ring == self.ring)
    }
}

impl Guard for RuntimeGuard {
    fn guards() -> &'static LocalKey<Guards<RuntimeGuard>> {
        &GUARDS
    }

    fn liveness(&self) -> &Rc<RuntimeLiveness> {
        &self.liveness
    }
}

impl AsRawFd for RuntimeGuard {
    fn as_raw_fd(&self) -> RawFd {
        self.ring
    }
}

/// Waits until the kernel uses no slot through this runtime any more: the last thing to do before
/// the runtime ends.
///
/// Drop every [`Registered`](super::Registered) and [`ReceiveRing`](super::ReceiveRing), with their
/// operations and streams, first.
///
/// Dropped operations are cancelled, but the kernel's answer takes a turn of the runtime. Without
/// `drain`, slots of operations that are still running when the runtime ends are quarantined:
/// nothing is overwritten, but the arena loses them.
///
/// ```
/// # use uring_arena::BufferRing;
/// use uring_arena::{FixedArena, compio::{ReceiveRing, drain}};
///
/// let arena = FixedArena::new(8, 4096)?;
/// compio::runtime::Runtime::new()?.block_on(async {
///     let ring = ReceiveRing::new(&arena, BufferRing::options().entries(8))?;
///     let (near, _far) = std::os::unix::net::UnixStream::pair()?;
///     let mut incoming = ring.receive(&compio::net::UnixStream::from_std(near)?);
///     let time = std::time::Duration::from_millis(1);
///     assert!(compio::runtime::time::timeout(time, incoming.try_next()).await.is_err());
///     drop((ring, incoming));
///     drain().await;
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!((arena.metrics().bytes_live, arena.metrics().quarantined), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn drain() {
    if let Ok(guard) = RuntimeGuard::current() {
        poll_fn(|context| guard.liveness.poll_drained(context)).await;
    }
}
