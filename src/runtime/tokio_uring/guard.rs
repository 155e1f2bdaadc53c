//! The guard of a tokio-uring runtime: sees the completions of abandoned operations.
//!
//! If a future is dropped, tokio-uring forgets the result of its operation. It drops the buffer
//! with the completion or, at shutdown, before it, and nothing tells which. So a
//! [`Submitted`](super::Submitted) that is dropped hands its operation to the guard, and the
//! guard's task awaits it. The runtime drops its tasks when it ends. An operation that the task
//! awaits then has no proof of completion, and its memory is quarantined.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::thread::LocalKey;

use ::tokio::runtime::{Handle, Id, RuntimeFlavor};
use ::tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, opcode, squeue, types};

use crate::runtime::liveness::{Guard, Guards, RuntimeLiveness};
use crate::runtime::transfer::SendQueues;

thread_local! {
    static GUARDS: Guards<RuntimeGuard> = const { RefCell::new(Vec::new()) };
}

/// An arena that could not be attached to a tokio-uring runtime.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No tokio-uring runtime runs on this thread.
    #[error(
        "no tokio-uring runtime is running on this thread: call this inside `tokio_uring::start` or `Runtime::block_on`"
    )]
    NotInRuntime,
    /// The runtime of this thread was built in a process of which this one is a forked child.
    #[error(
        "this tokio-uring runtime is of a parent of this process: a forked child has no part in its ring; build a runtime there"
    )]
    OtherProcess,
    /// The runtime, which has one table, has registered buffers already.
    #[error("this tokio-uring runtime has registered buffers already: register one arena, once")]
    TableTaken,
    /// The arena is larger than 1024 entries of 1 GiB.
    #[error(
        "{bytes} bytes do not fit in the 1024 entries of 1 GiB that tokio-uring registers: use several runtimes"
    )]
    TooLarge {
        /// The size of the arena, in bytes.
        bytes: usize,
    },
    /// The kernel may not pin this much memory.
    #[error(
        "the kernel will not pin {bytes} bytes for this process: raise RLIMIT_MEMLOCK (`ulimit -l`), or go on unregistered"
    )]
    MemoryLocked {
        /// The size of the arena, in bytes.
        bytes: usize,
    },
    /// The kernel refused for another reason.
    #[error("the kernel refused to register the arena ({0}): go on unregistered")]
    Kernel(io::Error),
}

debug_is_display!(AttachError);
into_io_error!(AttachError);

impl AttachError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            AttachError::NotInRuntime | AttachError::OtherProcess => io::ErrorKind::InvalidInput,
            AttachError::TableTaken => io::ErrorKind::ResourceBusy,
            AttachError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            AttachError::MemoryLocked { .. } => io::ErrorKind::OutOfMemory,
            AttachError::Kernel(error) => error.kind(),
        }
    }
}

/// One runtime, and the operations that were abandoned on it.
pub(super) struct RuntimeGuard {
    runtime: Id,
    liveness: Rc<RuntimeLiveness>,
    pub(super) sends: Rc<SendQueues>,
    /// The number of waits for the last loan that every operation was cancelled for.
    drains_served: Cell<u64>,
}

impl RuntimeGuard {
    /// Returns the guard of the runtime that this thread is in. Returns `None` if nothing of ours
    /// was used there, or if the runtime is ending.
    pub(super) fn known() -> Option<Rc<RuntimeGuard>> {
        let runtime = Handle::try_current().ok()?.id();
        RuntimeGuard::find(|guard| guard.runtime == runtime)
    }

    /// Returns the guard of the runtime that this thread is in; starts it if need be.
    pub(super) fn current() -> Result<Rc<RuntimeGuard>, AttachError> {
        match RuntimeGuard::known() {
            Some(guard) if guard.liveness.is_ours() => Ok(guard),
            Some(_) => Err(AttachError::OtherProcess),
            None => RuntimeGuard::begin(),
        }
    }

    #[cold]
    fn begin() -> Result<Rc<RuntimeGuard>, AttachError> {
        let handle = Handle::try_current().map_err(|_| AttachError::NotInRuntime)?;
        if handle.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return Err(AttachError::NotInRuntime);
        }
        // An ordinary runtime of one thread looks the same, but has no ring.
        in_runtime(|| submit_and_forget(opcode::Nop::new().build()))?;
        let (guard, task) = Guard::start(RuntimeGuard {
            runtime: handle.id(),
            liveness: RuntimeLiveness::new(),
            sends: Rc::default(),
            drains_served: Cell::new(0),
        });
        ::tokio_uring::spawn(task);
        Ok(guard)
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
        let cancel = |target: types::CancelBuilder| {
            submit_and_forget(opcode::AsyncCancel2::new(target).build());
        };
        for descriptor in self.liveness.to_cancel() {
            cancel(types::CancelBuilder::fd(types::Fd(descriptor)).all());
        }
        // Nothing tells which of tokio-uring's own operations lost their futures.
        let drains = self.liveness.drain_count();
        if self.liveness.lent() > 0 && self.drains_served.replace(drains) < drains {
            cancel(types::CancelBuilder::any());
        }
    }

    fn on_end(&self) {
        // Completions that are there already are proof, and give their memory back.
        self.liveness.poll_abandoned(&mut Context::from_waker(Waker::noop()));
    }
}

/// Calls a function of tokio-uring that panics where no runtime of it runs.
pub(super) fn in_runtime<T>(call: impl FnOnce() -> T) -> Result<T, AttachError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        if !text.is_some_and(|text| text.contains("runtime context")) {
            resume_unwind(panic);
        }
        AttachError::NotInRuntime
    })
}

/// Submits an entry that refers to no memory and has no result of use.
fn submit_and_forget(entry: squeue::Entry) {
    struct Forget;

    impl OneshotOutputTransform for Forget {
        type Output = ();
        type StoredData = ();

        fn transform_oneshot_output(self, (): (), _: cqueue::Entry) {}
    }

    drop(UnsubmittedOneshot::new((), Forget, entry).submit());
}

/// Waits until the kernel uses no slot through this runtime any more: the last thing to do before
/// the runtime ends. Await your tasks before. Outside a tokio-uring runtime it does nothing.
///
/// It cancels the operations of [`read`](super::read), [`write`](super::write()),
/// [`read_at`](super::read_at), [`write_at`](super::write_at), [`send_all`](super::send_all) and
/// [`Registered`](super::Registered) whose futures were dropped before or are dropped meanwhile,
/// with everything else that is running on their descriptors. It waits for the others.
///
/// tokio-uring does not show whose futures were dropped among its own methods. So if a
/// [`Loan`](crate::Loan) is in one of them, every operation of the runtime is cancelled. A loan
/// that was used and is still held counts too, until it is taken back or dropped.
///
/// Without `drain`, slots of operations that are still running when the runtime ends are
/// quarantined: nothing is overwritten, but the arena loses them.
///
/// Cancelling needs Linux 5.19. An older kernel waits until each operation ends by itself.
///
/// ```
/// # use std::rc::Rc;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// tokio_uring::start(async {
///     let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
///     let stream = Rc::new(tokio_uring::net::UnixStream::from_std(ours));
///     drop(arena_io::read(&stream, arena.allocate()?)); // nothing will ever arrive
///     assert_eq!(arena.metrics().bytes_live, 4096);
///     arena_io::drain().await;
///     assert_eq!(arena.metrics().bytes_live, 0);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(arena.metrics().quarantined, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn drain() {
    if let Some(guard) = RuntimeGuard::known() {
        guard.liveness.drained().await;
    }
}
