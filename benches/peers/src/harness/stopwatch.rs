//! Time that is ours: what other processes do on the same core is not in it.
//!
//! On a quiet machine it is the same as the wall clock, as nothing measured with it sleeps.

use std::time::Duration;

/// Processor time since some moment.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    clock: libc::clockid_t,
    begin: Duration,
}

impl Stopwatch {
    /// Of the calling thread.
    pub fn thread() -> Self {
        Self::on(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    /// Of all threads of the process, io_uring's workers included.
    pub fn process() -> Self {
        Self::on(libc::CLOCK_PROCESS_CPUTIME_ID)
    }

    fn on(clock: libc::clockid_t) -> Self {
        Self { clock, begin: now(clock) }
    }

    pub fn elapsed(&self) -> Duration {
        now(self.clock).saturating_sub(self.begin)
    }
}

fn now(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
