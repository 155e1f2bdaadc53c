//! The one way into the kernel: entries are pushed here, and completions come back.
//!
//! # Safety
//!
//! Unsafe here: pushing entries, on the caller's word that their memory outlives them.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::DriverError;
use super::ids::Tag;
use crate::uring::is_refusal;

/// The time that an entry into the kernel may wait for a completion.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Never,
    Until(Instant),
    Forever,
}

impl Wait {
    /// Waits for `timeout` from now on: without end if the clock does not reach so far.
    pub(super) fn timeout(timeout: Duration) -> Wait {
        Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until)
    }
}

/// An io_uring, and the count of the system calls to it.
pub(super) struct Submitter {
    pub(super) uring: IoUring,
    pub(super) enters: u64,
}

impl Submitter {
    pub(super) fn new(uring: IoUring) -> Submitter {
        Submitter { uring, enters: 0 }
    }

    /// Pushes an entry that carries `tag`. Submits the entries before it if the queue is full.
    ///
    /// # Safety
    ///
    /// The memory and the descriptor that the entry names stay valid until its final completion.
    pub(super) unsafe fn push(
        &mut self,
        tag: Tag,
        entry: squeue::Entry,
    ) -> Result<(), DriverError> {
        // A queue that stays full after a submission is one that the kernel does not take from now.
        const TRIES: usize = 2;
        let entry = entry.user_data(tag.user_data());
        for _ in 0..TRIES {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(Wait::Never)?;
        }
        Err(DriverError::System { action: "submitting (the queue stays full)", errno: libc::EBUSY })
    }

    /// Asks the kernel to end an operation. The operation's own completion says when it has.
    pub(super) fn cancel(&mut self, tag: Tag) -> Result<(), DriverError> {
        let target = types::CancelBuilder::user_data(tag.user_data());
        // SAFETY: the entry refers to no memory.
        unsafe { self.push(tag.cancel(), opcode::AsyncCancel2::new(target).build()) }
    }

    /// Submits what was pushed, and waits for a completion as long as `wait` allows.
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), DriverError> {
        let submitter = self.uring.submitter();
        self.enters += 1;
        let answer = match wait {
            Wait::Never => submitter.submit_and_wait(0),
            Wait::Forever => submitter.submit_and_wait(1),
            Wait::Until(until) => {
                let left = types::Timespec::from(until.saturating_duration_since(Instant::now()));
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&left))
            }
        };
        match answer.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            // A signal, the end of the time, or a completion queue that must be emptied first: the
            // caller looks at the queue, and comes again.
            Ok(_) | Err(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            Err(errno) if is_refusal(errno) => Err(DriverError::Forbidden { errno, sysctl: None }),
            Err(errno) => {
                Err(DriverError::System { action: "entering the kernel (io_uring_enter)", errno })
            }
        }
    }

    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }
}
