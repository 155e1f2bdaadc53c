//! Whether the runtime that a slot was lent to is certainly still there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One stretch of a runtime's life during which it cannot have been dropped.
///
/// A runtime that is dropped gives buffers back before the kernel is done with them. While it lives
/// it gives them back only with their completion. So a buffer that comes back during the session is
/// the user's; one that comes back later may be the kernel's.
#[derive(Debug)]
pub(super) struct Session {
    alive: Cell<bool>,
    /// Loans, and operations of our own, that the kernel may be using.
    lent: Cell<usize>,
    /// Who waits for the last of them.
    draining: RefCell<Vec<Waker>>,
}

impl Session {
    pub(super) fn new() -> Rc<Session> {
        Rc::new(Session {
            alive: Cell::new(true),
            lent: Cell::new(0),
            draining: RefCell::default(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }

    /// From here on nothing is certain.
    pub(super) fn end(&self) {
        self.alive.set(false);
    }

    /// Ready when nothing is lent.
    #[cfg_attr(
        not(any(feature = "tokio-uring", feature = "compio")),
        allow(dead_code, reason = "monoio lets nobody wait")
    )]
    pub(super) fn poll_drained(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.lent.get() == 0 {
            return Poll::Ready(());
        }
        self.draining.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn note_lent(&self) {
        self.lent.set(self.lent.get() + 1);
    }

    pub(super) fn note_back(&self) {
        self.lent.set(self.lent.get() - 1);
        if self.lent.get() == 0 && !self.draining.borrow().is_empty() {
            self.draining.take().into_iter().for_each(Waker::wake);
        }
    }
}
