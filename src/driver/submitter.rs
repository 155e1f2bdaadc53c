//! The one way into the kernel: entries are pushed here, and completions come back.
//!
//! # Safety
//!
//! Unsafe here: pushing entries, on the caller's word that their memory outlives them; those of
//! timers; and ending the ring, or a forked child's copy of it, once.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::DriverError;
use super::ids::Tag;
use crate::region::Process;
use crate::uring::{WaitFor, is_refusal, submit_and_wait, submit_and_wait_for_time};

/// The longest wait of one entry into the kernel. Sums of times overflow in kernels that are told
/// to wait for centuries.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

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

    /// Returns whether the time is over.
    pub(super) fn is_over(self) -> bool {
        match self {
            Wait::Never => true,
            Wait::Until(until) => Instant::now() >= until,
            Wait::Forever => false,
        }
    }
}

/// An io_uring, and the count of the system calls to it.
///
/// A forked child has the ring's descriptor, and not its queues: the addresses are free there, or
/// anything else's. The child neither reads the queues nor calls the kernel.
pub(super) struct Submitter {
    pub(super) uring: ManuallyDrop<IoUring>,
    pub(super) process: Process,
    pub(super) enters: u64,
    /// The kernel defers completions until this ring is entered, and says so by the ring's flags.
    defers: bool,
    /// The completions that a wait waits for.
    wait_for: WaitFor,
}

impl Submitter {
    /// Takes over a ring, which `defers` completions or not.
    pub(super) fn new(uring: IoUring, defers: bool) -> Submitter {
        let (uring, wait_for) = (ManuallyDrop::new(uring), WaitFor::ONE);
        Submitter { uring, process: Process::current(), enters: 0, defers, wait_for }
    }

    /// Has each wait collect several completions, or end when `within` is over and there is one.
    /// The kernel must know how to (`Feature::MinWait`).
    pub(super) fn collect(&mut self, completions: u32, within: Duration) {
        // The kernel could never have more than the queue holds.
        let most = self.uring.params().cq_entries();
        self.wait_for = WaitFor::several(completions.min(most), within);
    }

    /// Returns `true` if the kernel has nothing to do for this ring before something happens.
    ///
    /// Only a ring with deferred completions tells: the kernel sets its flag before it signals the
    /// event descriptor. Of two other rings on one thread the second's flag may stay unset.
    #[inline]
    fn is_at_rest(&mut self) -> bool {
        let submission = self.uring.submission();
        self.defers && submission.is_empty() && !submission.taskrun() && !submission.cq_overflow()
    }

    /// Returns whether the kernel has work for this ring that an entry has to run. An entry that
    /// does not wait runs twenty pieces of it, and nothing signals the rest.
    pub(super) fn has_deferred_work(&mut self) -> bool {
        let submission = self.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Returns whether this process has built the ring.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.process.is_current()
    }

    /// Returns an error if this process is a forked child of the one that has built the ring.
    #[inline]
    pub(super) fn check_process(&self) -> Result<(), DriverError> {
        if self.is_ours() { Ok(()) } else { Err(self.other_process()) }
    }

    #[cold]
    fn other_process(&self) -> DriverError {
        let (of, to) = self.process.other().unwrap_or_default();
        DriverError::OtherProcess { of, to }
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

    /// Pushes entries that follow one another without a gap, so that links hold: all, or none.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push), for each entry. They carry the tags of their owners.
    pub(super) unsafe fn push_chain(
        &mut self,
        entries: &[squeue::Entry],
    ) -> Result<(), DriverError> {
        let limit = self.uring.params().sq_entries() as usize;
        if entries.len() > limit {
            return Err(DriverError::ChainTooLong { entries: entries.len(), limit });
        }
        // SAFETY: the caller's promise.
        if unsafe { self.uring.submission().push_multiple(entries) }.is_ok() {
            return Ok(());
        }
        // Earlier entries are submitted first: a chain must not be cut by a submission.
        self.flush()?;
        // SAFETY: the caller's promise.
        unsafe { self.uring.submission().push_multiple(entries) }.map_err(|_| DriverError::System {
            action: "submitting (the queue stays full)",
            errno: libc::EBUSY,
        })
    }

    /// Asks the kernel to end an operation. The operation's own completion says when it has.
    pub(super) fn cancel(&mut self, tag: Tag) -> Result<(), DriverError> {
        let target = types::CancelBuilder::user_data(tag.user_data());
        // SAFETY: the entry refers to no memory.
        unsafe { self.push(tag.cancel(), opcode::AsyncCancel2::new(target).build()) }
    }

    /// Asks the kernel to end an operation, as [`cancel`](Self::cancel) does. The request has a
    /// completion of its own only if it fails (5.17).
    pub(super) fn cancel_quietly(&mut self, tag: Tag) -> Result<(), DriverError> {
        let target = types::CancelBuilder::user_data(tag.user_data());
        let entry = opcode::AsyncCancel2::new(target).build().flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry refers to no memory.
        unsafe { self.push(tag.cancel(), entry) }
    }

    /// Submits what was pushed, and waits for a completion as long as `wait` allows. Returns `true`
    /// if the wait may have ended before its time without one.
    ///
    /// Makes no system call if it does not wait, and the kernel has nothing to do.
    #[inline(always)]
    pub(super) fn enter(&mut self, wait: Wait) -> Result<bool, DriverError> {
        if matches!(wait, Wait::Never) && self.is_at_rest() {
            return Ok(false);
        }
        self.enters += 1;
        let answer = match wait {
            Wait::Never => number(self.uring.submitter().submit_and_wait(0)),
            Wait::Forever => {
                let entries = self.uring.submission().len();
                submit_and_wait(self.uring.as_raw_fd(), entries, &self.wait_for)
            }
            Wait::Until(until) => {
                let left = until.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
                let entries = self.uring.submission().len();
                let fd = self.uring.as_raw_fd();
                submit_and_wait_for_time(fd, entries, &self.wait_for, left)
            }
        };
        match answer {
            Ok(0) => Ok(false),
            // The number of entries that were submitted hides a signal after it. `ETIME` may be the
            // end of the longest wait.
            Ok(_) | Err(libc::EINTR | libc::ETIME) => Ok(true),
            // A completion queue that must be emptied first, or no memory for requests: the caller
            // looks at the queue, and comes again.
            Err(libc::EBUSY | libc::EAGAIN) => Ok(false),
            Err(errno) if is_refusal(errno) => Err(DriverError::Forbidden { errno, sysctl: None }),
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

    /// Takes the next completion. A forked child finds none.
    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        if !self.is_ours() {
            return None;
        }
        self.uring.completion().next()
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }
}

/// Returns the number of the error, if the kernel was entered in vain.
fn number(answer: std::io::Result<usize>) -> Result<usize, i32> {
    answer.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

impl AsRawFd for Submitter {
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.uring) };
        } else {
            // SAFETY: the child's own copy of the descriptor. The ring, which is not dropped, would
            // unmap its queues, and what may lie at their addresses now.
            drop(unsafe { OwnedFd::from_raw_fd(self.uring.as_raw_fd()) });
        }
    }
}

/// A timer of the ring: its completion comes once, some time after its start.
//
// Invariant: while `is_running` the kernel may still have to read `time`, so it stays as it is.
pub(super) struct Timer {
    tag: Tag,
    time: Box<types::Timespec>,
    /// The time of an update. The kernel may still have to read it, while the driver lives.
    next_time: Box<types::Timespec>,
    is_running: bool,
}

impl Timer {
    /// Creates a timer whose completion carries `tag`.
    pub(super) fn new(tag: Tag) -> Timer {
        let time = || Box::new(types::Timespec::new());
        Timer { tag, time: time(), next_time: time(), is_running: false }
    }

    /// Starts the timer. A timer that is running goes on as it is.
    pub(super) fn start(
        &mut self,
        after: Duration,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        if self.is_running {
            return Ok(());
        }
        *self.time = types::Timespec::from(after);
        let entry = opcode::Timeout::new(&raw const *self.time).build();
        // SAFETY: the kernel reads the time when it takes the entry. Until the completion the time
        // stays (invariant), and a ring that is dropped before takes no entry any more.
        unsafe { submitter.push(self.tag, entry) }?;
        self.is_running = true;
        Ok(())
    }

    /// Starts the timer, or has it end earlier than it would.
    pub(super) fn start_or_hasten(
        &mut self,
        after: Duration,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        if !self.is_running {
            return self.start(after, submitter);
        }
        *self.next_time = types::Timespec::from(after);
        let entry = opcode::TimeoutUpdate::new(self.tag.user_data(), &raw const *self.next_time);
        // SAFETY: as in `start`. An update that comes too late fails, and the completion has come.
        unsafe { submitter.push(self.tag.cancel(), entry.build()) }
    }

    /// Notes that the completion came.
    pub(super) fn on_completion(&mut self) {
        self.is_running = false;
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
        let mut submitter = Submitter::new(uring, false);
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
