//! Processor time: work of other processes on the same core is not in it.
//!
//! On a quiet machine it is the same as the wall clock, as nothing measured with it sleeps.

use std::time::Duration;

/// The processor time since some moment.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    clock: libc::clockid_t,
    begin: Duration,
}

impl Stopwatch {
    /// Starts with the time of the calling thread.
    pub fn thread() -> Self {
        Self::on(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    /// Starts with the time of all threads of the process, io_uring's workers included.
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

/// Reads a clock.
pub fn now(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the cores of the machine. A pinned thread may use one of them only.
pub fn core_count() -> usize {
    // SAFETY: no pointers are passed.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}

/// Keeps the calling thread on one core, counted around the number of cores.
/// The thread stays unpinned where the kernel refuses: the spread will show it.
pub fn pin_to_core(index: usize) {
    // SAFETY: an all-zero set is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the index is below the number of cores, which a `cpu_set_t` of 1024 bits holds.
    unsafe { libc::CPU_SET(index % core_count().min(1024), &mut set) };
    // SAFETY: the set is initialised and lives through the call.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}
