//! How the tasks of a runtime tell the round that all has arrived.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Counts bytes; wakes the round when they are all there. One thread only.
#[derive(Clone, Default)]
pub struct Goal(Rc<Inner>);

#[derive(Default)]
struct Inner {
    missing: Cell<isize>,
    starved: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Goal {
    pub fn expect(&self, bytes: usize) {
        self.0.missing.set(self.0.missing.get() + bytes as isize);
    }

    /// Called by a connection's task for each message.
    #[inline]
    pub fn arrived(&self, bytes: usize) {
        let missing = self.0.missing.get() - bytes as isize;
        self.0.missing.set(missing);
        if missing <= 0
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }

    pub async fn reached(&self) {
        poll_fn(|context| {
            if self.is_reached() {
                return Poll::Ready(());
            }
            self.0.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    pub fn is_reached(&self) -> bool {
        self.0.missing.get() <= 0
    }

    /// A receive ended because no buffer was free.
    pub fn starve(&self) {
        self.0.starved.set(self.0.starved.get() + 1);
    }

    pub fn starved(&self) -> u64 {
        self.0.starved.get()
    }
}
