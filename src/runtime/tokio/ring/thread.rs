//! The engine's thread: values that may not leave it, and how the system schedules it.
//!
//! # Safety
//!
//! Unsafe here: promising that a value which may not change threads does not, and asking the C
//! library for a scheduling policy. [`ThreadBound`] reaches its value on the thread that made it
//! only, and drops it on no other.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::thread::{self, ThreadId};

/// A value that is reached on one thread only, inside a task that may move and be dropped anywhere.
// Invariant: `value` was made on `thread`.
pub(super) struct ThreadBound<T> {
    value: ManuallyDrop<T>,
    thread: ThreadId,
}

// SAFETY: only the bytes move. `get` and `drop` touch the value on its own thread alone, whose id
// is never given to another.
unsafe impl<T> Send for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    pub(super) fn new(value: T) -> ThreadBound<T> {
        ThreadBound { value: ManuallyDrop::new(value), thread: thread::current().id() }
    }

    /// Returns the value. Returns `None` on any thread but its own.
    pub(super) fn get(&mut self) -> Option<&mut T> {
        (thread::current().id() == self.thread).then_some(&mut *self.value)
    }
}

impl<T> Drop for ThreadBound<T> {
    fn drop(&mut self) {
        if thread::current().id() == self.thread {
            // SAFETY: dropped once, here, and on its own thread.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        } else {
            tracing::error!(
                "the pool's driver was dropped on a thread that is not its own: it is leaked, with the slots that it held"
            );
        }
    }
}

/// Makes this thread a batch job, which interrupts no other thread when it wakes up
/// ([sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html)). Needs no privilege.
///
/// On a core that others keep busy, an ordinary thread interrupts what runs there for each message:
/// two context switches a message. A batch job runs when the other thread sleeps, and takes the
/// messages together.
pub(crate) fn run_as_batch() -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads `parameters`, which is ours.
    let answer = unsafe { libc::sched_setscheduler(THIS_THREAD, libc::SCHED_BATCH, &parameters) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::run_as_batch;

    #[test]
    fn the_thread_that_asks_is_a_batch_job_and_no_other() {
        // SAFETY: asks only.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let batch = std::thread::spawn(move || run_as_batch().map(|()| policy())).join().unwrap();
        assert_eq!(batch.unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
