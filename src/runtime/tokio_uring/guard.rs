//! The guard of a tokio-uring runtime: sees the completions of abandoned operations.
//!
//! When a future is dropped, tokio-uring forgets the result of its operation. It drops the buffer
//! with the completion or, at shutdown, before it, and nothing tells which. So a
//! [`Submitted`](super::Submitted) that is dropped hands its operation to the guard, and the
//! guard's task awaits it. The runtime drops its tasks when it ends. An operation that the task
//! awaits then has no proof of completion, and its memory is quarantined.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::thread::LocalKey;

use ::tokio::runtime::{Handle, Id};
use ::tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, opcode, squeue, types};

use crate::runtime::liveness::{Guard, Guards, RuntimeLiveness};
use crate::sync::contain;

thread_local! {
    static GUARDS: Guards<RuntimeGuard> = const { RefCell::new(Vec::new()) };
}

/// One runtime, and the operations that were abandoned on it.
pub(super) struct RuntimeGuard {
    runtime: Id,
    liveness: Rc<RuntimeLiveness>,
    abandoned: RefCell<Vec<Abandoned>>,
    /// The waker of the guard's task.
    waker: Cell<Option<Waker>>,
}

/// An operation that lost its future before its completion.
struct Abandoned {
    operation: Pin<Box<dyn Future<Output = ()>>>,
    descriptor: RawFd,
}

impl RuntimeGuard {
    /// Returns the guard of the runtime that this thread is in. Returns `None` if nothing of ours
    /// was used there, or if the runtime is ending.
    pub(super) fn known() -> Option<Rc<RuntimeGuard>> {
        let runtime = Handle::try_current().ok()?.id();
        RuntimeGuard::find(|guard| guard.runtime == runtime)
    }

    pub(super) fn known_liveness() -> Option<Rc<RuntimeLiveness>> {
        RuntimeGuard::known().map(|guard| Rc::clone(&guard.liveness))
    }

    /// Returns the guard of the runtime that this thread is in; starts it if need be.
    ///
    /// Panics outside a tokio-uring runtime.
    pub(super) fn current() -> Rc<RuntimeGuard> {
        RuntimeGuard::known().unwrap_or_else(RuntimeGuard::begin)
    }

    #[cold]
    fn begin() -> Rc<RuntimeGuard> {
        let handle =
            Handle::try_current().expect("a tokio-uring runtime must be running on this thread");
        // Panics here, before anything is at stake, if this is another kind of runtime.
        submit_and_forget(opcode::Nop::new().build());
        let (guard, task) = Guard::start(RuntimeGuard {
            runtime: handle.id(),
            liveness: RuntimeLiveness::new(),
            abandoned: RefCell::default(),
            waker: Cell::default(),
        });
        ::tokio_uring::spawn(task);
        guard
    }

    /// Takes over an operation that loses its future.
    pub(super) fn adopt(&self, operation: Pin<Box<dyn Future<Output = ()>>>, descriptor: RawFd) {
        self.abandoned.borrow_mut().push(Abandoned { operation, descriptor });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Polls every abandoned operation once, and keeps the ones that are still running.
    fn poll_abandoned(&self, context: &mut Context<'_>) {
        // Taken out meanwhile: the drop of an operation's result may abandon another operation.
        let mut running = self.abandoned.take();
        running.retain_mut(|abandoned| {
            let mut is_running = false;
            // The result, and the memory in it, are dropped in there.
            contain("the drop of a payload", || {
                is_running = abandoned.operation.as_mut().poll(context).is_pending();
            });
            is_running
        });
        self.abandoned.borrow_mut().append(&mut running);
    }

    fn cancel_abandoned(&self) {
        for abandoned in &*self.abandoned.borrow() {
            let target = types::CancelBuilder::fd(types::Fd(abandoned.descriptor)).all();
            submit_and_forget(opcode::AsyncCancel2::new(target).build());
        }
    }
}

impl Guard for RuntimeGuard {
    fn guards() -> &'static LocalKey<Guards<RuntimeGuard>> {
        &GUARDS
    }

    fn liveness(&self) -> &Rc<RuntimeLiveness> {
        &self.liveness
    }

    fn poll(&self, context: &mut Context<'_>) {
        self.waker.set(Some(context.waker().clone()));
        self.poll_abandoned(context);
    }

    fn on_end(&self) {
        // Completions that are there already are proof, and give their memory back.
        self.poll_abandoned(&mut Context::from_waker(Waker::noop()));
        drop(self.abandoned.take());
    }
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
/// the runtime ends.
///
/// First cancels the abandoned operations of [`read`](super::read), [`write`](super::write()),
/// [`read_at`](super::read_at), [`write_at`](super::write_at) and
/// [`Registered`](super::Registered), with everything else that is running on their descriptors.
/// Then waits for loans in tokio-uring's own methods as long as they take: shut their sockets down
/// before. A [`Loan`](crate::Loan) that was used and is still held counts too.
///
/// Without `drain`, slots of operations that are still running when the runtime ends are
/// quarantined: nothing is overwritten, but the arena loses them.
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
    let Some(guard) = RuntimeGuard::known() else { return };
    guard.cancel_abandoned();
    poll_fn(|context| guard.liveness.poll_drained(context)).await;
}
