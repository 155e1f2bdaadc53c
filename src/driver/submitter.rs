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
            Err(errno) => {
                Err(DriverError::System { action: "entering the kernel (io_uring_enter)", errno })
            }
        }
    }

    /// Submits everything that was pushed, so that the kernel has looked up what each entry names
    /// by its index in a table.
    ///
    /// One call need not take all: it stops behind an entry that the kernel refuses at once. Fails
    /// if the kernel takes nothing more now.
    pub(super) fn flush(&mut self) -> Result<(), DriverError> {
        let mut left = self.uring.submission().len();
        while left > 0 {
            self.enter(Wait::Never)?;
            let before = std::mem::replace(&mut left, self.uring.submission().len());
            if left >= before {
                let action = "submitting (the kernel takes no entry now)";
                return Err(DriverError::System { action, errno: libc::EBUSY });
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a timeout of two clocks at once, which the kernel refuses before it takes the next
    /// entry.
    fn refused_at_once(time: &types::Timespec) -> squeue::Entry {
        let clocks = types::TimeoutFlags::BOOTTIME | types::TimeoutFlags::REALTIME;
        opcode::Timeout::new(time).flags(clocks).build()
    }

    #[test]
    fn a_flush_submits_the_entries_behind_those_that_are_refused() {
        let Ok(uring) = IoUring::new(64) else { return eprintln!("SKIPPED: no io_uring") };
        let mut submitter = Submitter::new(uring);
        let time = types::Timespec::new();
        for _ in 0..10 {
            // SAFETY: the time outlives the entry.
            unsafe { submitter.push(Tag::WAKEUP, refused_at_once(&time)) }.unwrap();
            // SAFETY: the entry names no memory.
            unsafe { submitter.push(Tag::WAKEUP.cancel(), opcode::Nop::new().build()) }.unwrap();
        }
        submitter.flush().unwrap();
        assert!(submitter.uring.submission().is_empty());
        let mut results = Vec::new();
        while let Some(completion) = submitter.next_completion() {
            results.push(completion.result());
        }
        assert_eq!(results, [-libc::EINVAL, 0].repeat(10));
    }
}
