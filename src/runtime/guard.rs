//! Guards: one for each runtime of a thread, and a task in the runtime that ends with it.
//!
//! A runtime gives no notice of its end. But it drops its tasks first, before its ring and before
//! the buffers of abandoned operations. So the drop of a task that never finishes is the notice.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::LocalKey;

use super::liveness::RuntimeLiveness;

/// The guards of one thread's runtimes, of one kind.
pub(super) type Guards<G> = RefCell<Vec<Rc<G>>>;

/// The record of one runtime, from its first use of an arena to its end.
pub(super) trait Guard: Sized + 'static {
    /// Returns the guards of this thread.
    fn guards() -> &'static LocalKey<Guards<Self>>;

    fn liveness(&self) -> &Rc<RuntimeLiveness>;

    /// Runs whenever the guard task is polled.
    fn poll(&self, _: &mut Context<'_>) {}

    /// Runs once the liveness has ended.
    fn on_end(&self) {}

    /// Finds the guard of a runtime that exists.
    fn find(is_it: impl Fn(&Self) -> bool) -> Option<Rc<Self>> {
        Self::guards().with_borrow(|guards| guards.iter().find(|guard| is_it(guard)).cloned())
    }

    /// Enters a guard into the list. Returns it, and the task that the runtime must run.
    fn start(self) -> (Rc<Self>, GuardTask<Self>) {
        let guard = Rc::new(self);
        Self::guards().with_borrow_mut(|guards| guards.push(Rc::clone(&guard)));
        (Rc::clone(&guard), GuardTask { guard })
    }
}

/// The task that ends with its runtime, and ends the liveness then.
pub(super) struct GuardTask<G: Guard> {
    guard: Rc<G>,
}

impl<G: Guard> Future for GuardTask<G> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.guard.poll(context);
        Poll::Pending
    }
}

impl<G: Guard> Drop for GuardTask<G> {
    fn drop(&mut self) {
        self.guard.liveness().end();
        // The thread's list may be gone already when the thread ends.
        let _ = G::guards().try_with(|guards| {
            guards.borrow_mut().retain(|guard| !Rc::ptr_eq(guard, &self.guard));
        });
        self.guard.on_end();
    }
}
