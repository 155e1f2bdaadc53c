//! Which core a thread runs on.

/// Cores of the machine. Not what the calling thread may use: that is one, once it is pinned.
pub fn core_count() -> usize {
    // SAFETY: no pointers are passed.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}

/// Keeps the calling thread on one core, counted around the number of cores.
/// Left unpinned where the kernel refuses: the spread will show it.
pub fn pin_to_core(index: usize) {
    // SAFETY: an all-zero set is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the index is below the number of cores, which a `cpu_set_t` of 1024 bits holds.
    unsafe { libc::CPU_SET(index % core_count().min(1024), &mut set) };
    // SAFETY: the set is initialised and lives through the call.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}
