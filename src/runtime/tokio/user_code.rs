//! The code of the user's that the pool runs: wakers, and drops of what was given to it.
//!
//! None of it runs while a lock of the pool is held. If it panics on the engine or on the task of
//! another user, the panic ends there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs code of the user's. A panic of it is reported, and goes no further.
pub(super) fn contain(what: &'static str, run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    tracing::error!(what, "code of the program panicked; the pool goes on without it");
    // What a panic carries is the user's as well.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}

/// Drops a value of the user's.
pub(super) fn drop_contained<T>(value: T) {
    contain("a drop", || drop(value));
}

/// A list of wakers that are woken once no lock is held. Dropping it wakes them.
#[derive(Default)]
pub(super) struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakers {
    pub(super) fn push(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(_) => self.others.push(waker),
        }
    }
}

impl Extend<Waker> for Wakers {
    fn extend<I: IntoIterator<Item = Waker>>(&mut self, wakers: I) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        let wakers = self.first.take().into_iter().chain(std::mem::take(&mut self.others));
        for waker in wakers {
            contain("a waker", || waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;
    use crate::sync::{AtomicU32, Ordering};

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("a waker's fault");
        }
    }

    #[test]
    fn wakers_that_panic_keep_no_other_from_being_woken() {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let mut wakers = Wakers::default();
        wakers.extend((0..3).map(|_| Waker::from(Arc::clone(&count))));
        drop(wakers);
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_panic_whose_message_panics_when_dropped_is_contained() {
        struct Bomb(u32);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if self.0 > 0 {
                    panic_any(Bomb(self.0 - 1));
                }
            }
        }
        contain("a test", || panic_any(Bomb(3)));
    }
}
