//! Time that is ours: what other processes do on the same core is not in it.
//!
//! On a quiet machine it is the same as the wall clock, as nothing measured with it sleeps.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
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

    /// Of another thread of this process.
    pub fn of<T>(thread: &JoinHandle<T>) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the handle keeps the thread's identity valid; the other pointer is to a live
        // value of the right type.
        match unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut clock) } {
            0 => Ok(Self::on(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
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
