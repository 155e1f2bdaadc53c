//! The limits of a process: on locked memory, which rings and registered memory count against, and
//! on descriptors.
//!
//! # Safety
//!
//! Unsafe here: asking the system for limits and capabilities.
#![allow(unsafe_code)]

use std::fmt;

use crate::region::system_page_bytes;

/// The bit of CAP_IPC_LOCK in a capability set.
const CAP_IPC_LOCK: u32 = 14;

/// The version of capability sets with two words of 32 bits (`_LINUX_CAPABILITY_VERSION_3`).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// The locked memory that a ring or a registration needs, beside what `RLIMIT_MEMLOCK` allows, in
/// bytes.
///
/// Registered memory is pinned. It counts against the limit of the **user**, over all rings and
/// processes, unless the process has CAP_IPC_LOCK. The queues of a ring and buffer rings count too;
/// clones of a registration do not. What a ring had is given back soon after its end, not at once.
/// See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
///
/// ```
/// use uring_arena::Memlock;
///
/// let memlock = Memlock::for_bytes(64 << 20);
/// if !memlock.suffices() {
///     println!("{memlock}");
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memlock {
    /// Bytes that the ring or the registration needs.
    pub needed: u64,
    /// The limit in force in bytes, or `None` for no limit.
    pub soft: Option<u64>,
    /// The highest limit that the process may set itself, in bytes, or `None` for no limit.
    pub hard: Option<u64>,
    /// True if CAP_IPC_LOCK lifts the limit from this process.
    pub privileged: bool,
}

impl Memlock {
    /// Reads the limits of this thread, for a ring or a registration of `needed` bytes.
    ///
    /// ```
    /// let memlock = uring_arena::Memlock::for_bytes(4096);
    /// assert_eq!(memlock.needed, 4096);
    /// ```
    pub fn for_bytes(needed: u64) -> Memlock {
        let (soft, hard) = limits(libc::RLIMIT_MEMLOCK);
        Memlock { needed, soft, hard, privileged: has_ipc_lock() }
    }

    /// Reads the limits of this thread, for the queues of a ring with these numbers of entries.
    pub(crate) fn for_ring(entries: u32, completion_entries: u32) -> Memlock {
        let (entries, completion_entries) =
            (entries.next_power_of_two(), completion_entries.next_power_of_two());
        // The heads, tails and counters come first, and the array of indices last.
        let completions = 64 + 16 * u64::from(completion_entries);
        let rings = completions.next_multiple_of(64) + 4 * u64::from(entries);
        Memlock::for_bytes(whole_pages(rings) + whole_pages(64 * u64::from(entries)))
    }

    /// Reads the limits of this thread, for a buffer ring whose array has so many bytes.
    pub(in crate::uring) fn for_buffer_ring(bytes: usize) -> Memlock {
        Memlock::for_bytes(whole_pages(bytes as u64))
    }

    /// Returns whether the limit holds for this process at all.
    pub(crate) fn is_in_force(&self) -> bool {
        !self.privileged && self.soft.is_some()
    }

    /// Returns whether the limit alone allows it. How much the user's other
    /// rings have locked is not known.
    ///
    /// ```
    /// assert!(uring_arena::Memlock::for_bytes(0).suffices());
    /// ```
    pub fn suffices(&self) -> bool {
        self.privileged || self.soft.is_none_or(|soft| self.needed <= soft)
    }
}

impl fmt::Display for Memlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: Option<u64>| match bytes {
            Some(bytes) => format!("{bytes} bytes"),
            None => "no limit".into(),
        };
        write!(
            f,
            "{} bytes are needed, the limit of this user (RLIMIT_MEMLOCK) is {} (hard: {})",
            self.needed,
            text(self.soft),
            text(self.hard)
        )?;
        if self.privileged {
            return f.write_str("; CAP_IPC_LOCK lifts it from this process");
        }
        let taken = match self.soft {
            Some(soft) if self.needed <= soft => {
                f.write_str(", of which other rings and processes of the user have taken a part")?;
                soft
            }
            _ => 0,
        };
        // Enough if the others have taken all that there is.
        let enough = self.needed.saturating_add(taken);
        let kib = enough.div_ceil(1024);
        if self.hard.is_none_or(|hard| enough <= hard) {
            write!(f, "; raise it by `ulimit -l {kib}`")
        } else {
            write!(
                f,
                "; raise it by `LimitMEMLOCK={enough}` in the systemd unit, `memlock {kib}` in /etc/security/limits.conf, \
                 or `docker run --ulimit memlock={enough}`, or give the program CAP_IPC_LOCK"
            )
        }
    }
}

/// Returns the number of descriptors that this process may have open.
pub(crate) fn descriptors_max() -> u32 {
    let (soft, _) = limits(libc::RLIMIT_NOFILE);
    soft.map_or(u32::MAX, |soft| u32::try_from(soft).unwrap_or(u32::MAX))
}

fn whole_pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(system_page_bytes() as u64)
}

/// The number of a limit, in the type that this C library has for it.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Returns the soft and the hard limit.
fn limits(resource: Resource) -> (Option<u64>, Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the struct, which is live during the call.
    let answer = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if answer != 0 {
        return (None, None);
    }
    // C libraries differ in the type of a limit.
    #[allow(clippy::unnecessary_cast)]
    let bytes = |value: libc::rlim_t| (value != libc::RLIM_INFINITY).then_some(value as u64);
    (bytes(limit.rlim_cur), bytes(limit.rlim_max))
}

/// Returns whether this thread has CAP_IPC_LOCK. The kernel checks the thread that makes the ring.
///
/// The system call needs no descriptor, which `/proc` would.
fn has_ipc_lock() -> bool {
    /// The kernel's `struct __user_cap_header_struct`.
    #[repr(C)]
    struct Header {
        version: u32,
        thread: libc::c_int,
    }
    /// The kernel's `struct __user_cap_data_struct`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    let mut header = Header { version: CAPABILITY_VERSION, thread: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both are live during the call, and of the size that this version has.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    answer == 0 && sets[0].effective & (1 << CAP_IPC_LOCK) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_that_of_the_status_file() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let set = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(has_ipc_lock(), set & (1 << CAP_IPC_LOCK) != 0);
    }

    #[test]
    fn a_rings_queues_are_whole_pages() {
        // Two pages is the least, and 256 entries with 1024 completions are 64 bytes beyond five.
        assert_eq!(Memlock::for_ring(1, 2).needed, 2 * whole_pages(1));
        assert_eq!(Memlock::for_ring(200, 1000).needed, Memlock::for_ring(256, 1024).needed);
        assert_eq!(Memlock::for_ring(256, 1024).needed, whole_pages(17_472) + whole_pages(16_384));
    }

    #[test]
    fn what_is_needed_is_counted_in_pages_of_the_system() {
        for page in [4096, 16384, 65536] {
            let (ring, array) = crate::region::fake_page::with(page, || {
                (Memlock::for_ring(1, 2).needed, Memlock::for_buffer_ring(1).needed)
            });
            assert_eq!((ring, array), (2 * page as u64, page as u64));
        }
    }

    #[test]
    fn the_remedy_fits_the_limits() {
        let memlock = |soft, hard| Memlock {
            needed: 1 << 20,
            soft: Some(soft),
            hard: Some(hard),
            privileged: false,
        };
        assert!(!memlock(4096, 8 << 20).suffices());
        assert!(memlock(4096, 8 << 20).to_string().contains("`ulimit -l 1024`"));
        assert!(memlock(4096, 4096).to_string().contains("LimitMEMLOCK=1048576"));
        assert!(memlock(8 << 20, 8 << 20).to_string().contains("other rings"));
        // What the others have taken is on top.
        assert!(memlock(8 << 20, 64 << 20).to_string().contains("`ulimit -l 9216`"));
        assert!(memlock(8 << 20, 8 << 20).to_string().contains("LimitMEMLOCK=9437184"));
        assert!(Memlock { privileged: true, ..memlock(0, 0) }.suffices());
    }
}
