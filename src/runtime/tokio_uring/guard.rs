//! Who sees the completions of abandoned operations.
//!
//! tokio-uring forgets the result of an operation whose future is dropped: its buffer is then
//! dropped either with the completion or, at shutdown, before it, and nothing tells which. So an
//! [`Operation`](super::Operation) that is dropped is not dropped: a task of the runtime adopts it
//! and awaits it. What that task cannot await any more, because the runtime drops its tasks, has no
//! proof of completion and is quarantined.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::tokio::runtime::{Handle, Id};
use ::tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, opcode, types};

use crate::runtime::liveness::Session;

thread_local! {
    /// The reapers of this thread's runtimes.
    static REAPERS: RefCell<Vec<Rc<Reaper>>> = const { RefCell::new(Vec::new()) };
}

/// Waits for what was abandoned on one runtime.
pub(super) struct Reaper {
    runtime: Id,
    pub(super) session: Rc<Session>,
    orphans: RefCell<Vec<Orphan>>,
    waker: Cell<Option<Waker>>,
}

struct Orphan {
    operation: Pin<Box<dyn Future<Output = ()>>>,
    descriptor: RawFd,
}

impl Reaper {
    /// The reaper of the runtime that this thread is in, and has not ended.
    pub(super) fn known() -> Option<Rc<Reaper>> {
        let runtime = Handle::try_current().ok()?.id();
        REAPERS
            .with_borrow(|reapers| reapers.iter().find(|reaper| reaper.runtime == runtime).cloned())
    }

    pub(super) fn known_session() -> Option<Rc<Session>> {
        Reaper::known().map(|reaper| Rc::clone(&reaper.session))
    }

    /// The reaper of the runtime that this thread is in; starts it if need be.
    ///
    /// Panics outside a tokio-uring runtime.
    pub(super) fn current() -> Rc<Reaper> {
        Reaper::known().unwrap_or_else(Reaper::start)
    }

    #[cold]
    fn start() -> Rc<Reaper> {
        let handle =
            Handle::try_current().expect("a tokio-uring runtime must be running on this thread");
        // Panics here, before anything is at stake, if this is another kind of runtime.
        drop(UnsubmittedOneshot::new((), Forget, opcode::Nop::new().build()).submit());
        let reaper = Rc::new(Reaper {
            runtime: handle.id(),
            session: Session::new(),
            orphans: RefCell::default(),
            waker: Cell::default(),
        });
        ::tokio_uring::spawn(Reap { reaper: Rc::clone(&reaper) });
        REAPERS.with_borrow_mut(|reapers| reapers.push(Rc::clone(&reaper)));
        reaper
    }

    /// Takes over an operation that nobody waits for any more.
    pub(super) fn adopt(&self, operation: Pin<Box<dyn Future<Output = ()>>>, descriptor: RawFd) {
        self.orphans.borrow_mut().push(Orphan { operation, descriptor });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Looks at every orphan once; keeps those that are still running.
    fn poll_orphans(&self, context: &mut Context<'_>) {
        // Taken out meanwhile: what an orphan drops may be another operation, which comes in here.
        let mut running = self.orphans.take();
        running.retain_mut(|orphan| orphan.operation.as_mut().poll(context).is_pending());
        self.orphans.borrow_mut().append(&mut running);
    }

    fn cancel_orphans(&self) {
        for orphan in &*self.orphans.borrow() {
            let target = types::CancelBuilder::fd(types::Fd(orphan.descriptor)).all();
            drop(
                UnsubmittedOneshot::new((), Forget, opcode::AsyncCancel2::new(target).build())
                    .submit(),
            );
        }
    }
}

/// The reaper's task.
struct Reap {
    reaper: Rc<Reaper>,
}

impl Future for Reap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.reaper.waker.set(Some(context.waker().clone()));
        self.reaper.poll_orphans(context);
        Poll::Pending
    }
}

impl Drop for Reap {
    /// The runtime is about to end: from here on a buffer that comes back proves nothing.
    fn drop(&mut self) {
        self.reaper.session.end();
        // The thread's list may be gone already when the thread ends.
        let _ = REAPERS.try_with(|reapers| {
            reapers.borrow_mut().retain(|reaper| !Rc::ptr_eq(reaper, &self.reaper));
        });
        self.reaper.poll_orphans(&mut Context::from_waker(Waker::noop()));
        drop(self.reaper.orphans.take());
    }
}

/// A result that nobody wants.
struct Forget;

impl OneshotOutputTransform for Forget {
    type Output = ();
    type StoredData = ();

    fn transform_oneshot_output(self, (): (), _: cqueue::Entry) {}
}

/// Waits until the kernel uses no slot through this runtime any more: the last thing to do before
/// the runtime ends.
///
/// Abandoned operations of [`read`](super::read), [`write`](super::write),
/// [`read_at`](super::read_at), [`write_at`](super::write_at) and [`Registered`](super::Registered)
/// are cancelled first, with everything else that is running on their descriptors. Loans given to
/// tokio-uring's own methods are waited for as long as they take: shut their sockets down before. A
/// [`Loan`](crate::Loan) that was used and is still held counts too.
///
/// Without it slots of operations that are still running when the runtime ends are quarantined:
/// nothing is overwritten, but they are lost to the arena.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use std::rc::Rc;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
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
    let Some(reaper) = Reaper::known() else { return };
    reaper.cancel_orphans();
    poll_fn(|context| reaper.session.poll_drained(context)).await;
}
