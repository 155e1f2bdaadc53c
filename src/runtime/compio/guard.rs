//! Which compio runtime is which, and whether it is still there.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use compio_runtime::Runtime;

use super::AttachError;
use crate::runtime::liveness::Session;

thread_local! {
    /// The anchors of this thread's runtimes.
    static ANCHORS: RefCell<Vec<Rc<Anchor>>> = const { RefCell::new(Vec::new()) };
}

/// One runtime, by its ring.
///
/// A descriptor's number may be given out again, so a task of the runtime tells when it ends: the
/// runtime drops its tasks before its ring.
#[derive(Debug)]
pub(super) struct Anchor {
    ring: RawFd,
    /// Counts operations of ours that the kernel has.
    pub(super) session: Rc<Session>,
}

impl Anchor {
    /// The anchor of the runtime that this thread is in.
    pub(super) fn current() -> Result<Rc<Anchor>, AttachError> {
        let look = |runtime: &Runtime| (runtime.as_raw_fd(), runtime.driver_type().is_iouring());
        let (ring, is_uring) =
            Runtime::try_with_current(look).map_err(|_| AttachError::NotInRuntime)?;
        if !is_uring {
            return Err(AttachError::NotOnUring);
        }
        let known = ANCHORS
            .with_borrow(|anchors| anchors.iter().find(|anchor| anchor.ring == ring).cloned());
        Ok(known.unwrap_or_else(|| Anchor::new(ring)))
    }

    fn new(ring: RawFd) -> Rc<Anchor> {
        let anchor = Rc::new(Anchor { ring, session: Session::new() });
        ANCHORS.with_borrow_mut(|anchors| anchors.push(Rc::clone(&anchor)));
        compio_runtime::spawn(Sentinel { anchor: Rc::clone(&anchor) }).detach();
        anchor
    }

    /// Whether this thread is in the anchor's runtime.
    pub(super) fn is_here(&self) -> bool {
        self.is_alive()
            && Runtime::try_with_current(|runtime| runtime.as_raw_fd())
                .is_ok_and(|fd| fd == self.ring)
    }

    /// Whether the runtime is still there, and its ring with it.
    pub(super) fn is_alive(&self) -> bool {
        self.session.is_alive()
    }
}

impl AsRawFd for Anchor {
    fn as_raw_fd(&self) -> RawFd {
        self.ring
    }
}

/// A task that does nothing but end with its runtime.
struct Sentinel {
    anchor: Rc<Anchor>,
}

impl Future for Sentinel {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.anchor.session.end();
        // The thread's list may be gone already when the thread ends.
        let _ = ANCHORS.try_with(|anchors| {
            anchors.borrow_mut().retain(|anchor| !Rc::ptr_eq(anchor, &self.anchor));
        });
    }
}

/// Waits until the kernel is done with every operation of [`Registered`](super::Registered) and
/// every receive of a [`ReceiveRing`](super::ReceiveRing) on this runtime: the last thing to do
/// before the runtime ends, after they and their streams were dropped.
///
/// What is dropped is cancelled, but the kernel's answer takes a turn of the runtime. Without it
/// slots of operations that are still running when the runtime ends are quarantined: nothing is
/// overwritten, but they are lost to the arena.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use uring_arena::BufferRing;
/// use uring_arena::{FixedArena, compio::{ReceiveRing, drain}};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// compio::runtime::Runtime::new()?.block_on(async {
///     let ring = ReceiveRing::new(&arena, BufferRing::options().entries(8))?;
///     let (near, _far) = std::os::unix::net::UnixStream::pair()?;
///     let mut incoming = ring.receive(&compio::net::UnixStream::from_std(near)?);
///     let patience = std::time::Duration::from_millis(1);
///     assert!(compio::runtime::time::timeout(patience, incoming.try_next()).await.is_err());
///     drop((ring, incoming));
///     drain().await;
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!((arena.metrics().bytes_live, arena.metrics().quarantined), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn drain() {
    if let Ok(anchor) = Anchor::current() {
        poll_fn(|context| anchor.session.poll_drained(context)).await;
    }
}
