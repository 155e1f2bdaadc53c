//! A value of one thread inside a task, which may be moved and dropped anywhere.
//!
//! # Safety
//!
//! Unsafe here: promising that a value which may not change threads does not. It is reached only on
//! the thread that made it, and on no other is it even dropped.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::thread::{self, ThreadId};

/// A value that is reached on one thread only.
///
/// Invariant: made on `thread`.
pub(crate) struct Fenced<T> {
    value: ManuallyDrop<T>,
    thread: ThreadId,
}

// SAFETY: only the bytes move. `get` and `drop` touch the value on its own thread alone, whose id
// is never given to another.
unsafe impl<T> Send for Fenced<T> {}

impl<T> Fenced<T> {
    pub(crate) fn new(value: T) -> Fenced<T> {
        Fenced { value: ManuallyDrop::new(value), thread: thread::current().id() }
    }

    /// The value, on its own thread.
    pub(crate) fn get(&mut self) -> Option<&mut T> {
        (thread::current().id() == self.thread).then_some(&mut *self.value)
    }
}

impl<T> Drop for Fenced<T> {
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
