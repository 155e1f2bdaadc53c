//! When a round is over.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Bytes that are still to come, and who waits for the last.
#[derive(Clone, Default)]
pub struct Goal {
    missing: Rc<Cell<usize>>,
    reached: Rc<Notify>,
}

impl Goal {
    pub fn expect(&self, bytes: usize) {
        self.missing.set(bytes);
    }

    pub fn arrived(&self, bytes: usize) {
        let missing = self.missing.get() - bytes;
        self.missing.set(missing);
        if missing == 0 {
            self.reached.notify_one();
        }
    }

    pub async fn reached(&self) {
        self.reached.notified().await;
    }
}
