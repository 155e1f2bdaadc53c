//! How the system schedules the pool's thread.
//!
//! On a core that others keep busy, an ordinary thread that wakes up for a message interrupts what
//! runs there. Messages that come one by one then cost two changes of threads each; a batch job is
//! let in when the other sleeps, and takes them together.
//!
//! # Safety
//!
//! Unsafe here: asking the C library for a policy.
#![allow(unsafe_code)]

use std::io;

/// Has this thread interrupt nobody when it wakes up. Needs no privilege: see
/// [sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html).
pub(super) fn run_as_batch() -> io::Result<()> {
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
