//! The guard of a compio runtime.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::thread::LocalKey;
use std::time::Duration;

use compio_runtime::{JoinHandle, Runtime};
use io_uring::opcode;

use crate::runtime::liveness::{Guard, Guards, Life, RuntimeLiveness};
use crate::runtime::transfer::SendQueues;
use crate::sync::contain;
use crate::uring::{RegisterError, RingError, cancel_opcode};

thread_local! {
    static GUARDS: Guards<RuntimeGuard> = const { RefCell::new(Vec::new()) };
}

/// An arena that could not be attached to a compio runtime.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No compio runtime runs on this thread, or another one than the arena is attached to.
    #[error(
        "this thread is in no compio runtime, or not in the one that was attached to: call this inside `block_on`, on the runtime's thread"
    )]
    NotInRuntime,
    /// The runtime of this thread was built in a process of which this one is a forked child.
    #[error(
        "this compio runtime is of a parent of this process: a forked child has no part in its ring; build a runtime there"
    )]
    OtherProcess,
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
            AttachError::NotInRuntime | AttachError::OtherProcess => io::ErrorKind::InvalidInput,
            AttachError::NotOnUring => io::ErrorKind::Unsupported,
            AttachError::Register(error) => error.kind(),
            AttachError::Ring(error) => error.kind(),
        }
    }
}

/// One runtime, by the descriptor of its ring.
///
/// A descriptor's number may be given out again, so it names the runtime while its life lasts only.
pub(super) struct RuntimeGuard {
    ring: RawFd,
    liveness: Rc<RuntimeLiveness>,
    pub(super) sends: Rc<SendQueues>,
    /// The guard task. A runtime that ends while its thread panics ends its tasks without a drop.
    task: OnceCell<JoinHandle<()>>,
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
        let is_it = |guard: &RuntimeGuard| guard.ring == ring && guard.liveness.is_ours();
        if let Some(guard) = RuntimeGuard::find(|guard| is_it(guard) && guard.lasts()) {
            return Ok(guard);
        }
        if RuntimeGuard::find(|guard| guard.ring == ring && !guard.liveness.is_ours()).is_some() {
            return Err(AttachError::OtherProcess);
        }
        Ok(RuntimeGuard::begin(ring))
    }

    #[cold]
    fn begin(ring: RawFd) -> Rc<RuntimeGuard> {
        let (guard, task) = Guard::start(RuntimeGuard {
            ring,
            liveness: RuntimeLiveness::new(),
            sends: Rc::default(),
            task: OnceCell::new(),
        });
        let task = compio_runtime::spawn(task);
        guard.task.get_or_init(|| task);
        guard
    }

    /// Returns the reason why this thread is not in the guard's runtime.
    pub(super) fn absence(&self) -> AttachError {
        if self.liveness.is_ours() { AttachError::NotInRuntime } else { AttachError::OtherProcess }
    }

    /// Returns `true` if this thread is in the guard's runtime.
    pub(super) fn is_here(&self) -> bool {
        self.lasts()
            && Runtime::try_with_current(|runtime| runtime.as_raw_fd())
                .is_ok_and(|ring| ring == self.ring)
    }
}

impl Life for RuntimeGuard {
    fn lasts(&self) -> bool {
        self.liveness.lasts() && self.task.get().is_some_and(|task| !task.is_finished())
    }
}

impl Guard for RuntimeGuard {
    fn guards() -> &'static LocalKey<Guards<RuntimeGuard>> {
        &GUARDS
    }

    fn liveness(&self) -> &Rc<RuntimeLiveness> {
        &self.liveness
    }

    fn cancel_abandoned(&self) {
        // compio cancels what is dropped.
        self.liveness.drop_abandoned();
    }

    /// Ends the operations that have several completions, and hands these in.
    ///
    /// A driver of compio 0.12 that ends takes an operation for finished with each completion that
    /// lies in its queue, and frees it as often.
    fn on_end(&self) {
        if !self.liveness.is_in_use() || !self.liveness.is_ours() {
            return;
        }
        let end = |runtime: &Runtime| {
            if runtime.as_raw_fd() != self.ring {
                return;
            }
            let turn = || runtime.poll_with(Some(Duration::ZERO));
            // The turn submits what is pushed, so that it can be cancelled.
            turn();
            for opcode in SEVERAL_COMPLETIONS {
                cancel_opcode(self.ring, opcode);
            }
            (0..TURNS_AT_END).for_each(|_| turn());
        };
        contain("the end of a compio runtime", || {
            let _ = Runtime::try_with_current(end);
        });
    }
}

/// The opcodes of ours that have several completions.
const SEVERAL_COMPLETIONS: [u8; 3] =
    [opcode::RecvMulti::CODE, opcode::SendZc::CODE, opcode::SendMsgZc::CODE];

/// The turns in which the completions of cancelled operations come. A turn of compio may see to its
/// threads alone.
const TURNS_AT_END: usize = 4;

impl AsRawFd for RuntimeGuard {
    fn as_raw_fd(&self) -> RawFd {
        self.ring
    }
}

/// Waits until the kernel uses no slot through this runtime any more: the last thing to do before
/// the runtime ends. Outside a compio runtime it does nothing.
///
/// Drop every [`Registered`](super::Registered) and [`ReceiveRing`](super::ReceiveRing), with their
/// operations and streams, first. A [`Loan`](crate::Loan) that was used and is still held counts
/// too, until it is taken back or dropped.
///
/// Dropped operations are cancelled, but the kernel's answer takes a turn of the runtime. A
/// [`send_all`](super::send_all) that goes on without its future is cancelled here. Without
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
        guard.liveness.drained().await;
    }
}
