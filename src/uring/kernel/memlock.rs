//! The limit on locked memory, which registered memory counts against.
//!
//! # Safety
//!
//! Unsafe here: asking the C library for a limit.
#![allow(unsafe_code)]

use std::fmt;

/// The bit of CAP_IPC_LOCK in a capability set.
const CAP_IPC_LOCK: u32 = 14;

/// The locked memory that a registration needs, beside what `RLIMIT_MEMLOCK` allows, in bytes.
///
/// Registered memory is pinned. It counts against the limit of the **user**, over all rings and
/// processes, unless the process has CAP_IPC_LOCK. Buffer rings count too; clones of a registration
/// do not. See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
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
    /// Bytes that the registration needs.
    pub needed: u64,
    /// The limit in force in bytes, or `None` for no limit.
    pub soft: Option<u64>,
    /// The highest limit that the process may set itself, in bytes, or `None` for no limit.
    pub hard: Option<u64>,
    /// True if CAP_IPC_LOCK lifts the limit from this process.
    pub privileged: bool,
}

impl Memlock {
    /// Reads the limits of this thread, for a registration of `needed` bytes.
    ///
    /// ```
    /// let memlock = uring_arena::Memlock::for_bytes(4096);
    /// assert_eq!(memlock.needed, 4096);
    /// ```
    pub fn for_bytes(needed: u64) -> Memlock {
        let (soft, hard) = limits();
        Memlock { needed, soft, hard, privileged: has_ipc_lock() }
    }

    /// Returns whether the limit alone allows the registration. How much the user's other
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
        if self.soft.is_none_or(|soft| self.needed <= soft) {
            f.write_str(", of which other rings and processes of the user have taken a part")?;
        }
        let kib = self.needed.div_ceil(1024);
        if self.hard.is_none_or(|hard| self.needed <= hard) {
            write!(f, "; raise it by `ulimit -l {kib}`")
        } else {
            write!(
                f,
                "; raise it by `LimitMEMLOCK={}` in the systemd unit, `memlock {kib}` in /etc/security/limits.conf, \
                 or `docker run --ulimit memlock={}`, or give the program CAP_IPC_LOCK",
                self.needed, self.needed
            )
        }
    }
}

fn limits() -> (Option<u64>, Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the struct, which is live during the call.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if answer != 0 {
        return (None, None);
    }
    // C libraries differ in the type of a limit.
    #[allow(clippy::unnecessary_cast)]
    let bytes = |value: libc::rlim_t| (value != libc::RLIM_INFINITY).then_some(value as u64);
    (bytes(limit.rlim_cur), bytes(limit.rlim_max))
}

/// Returns whether this thread has CAP_IPC_LOCK. The kernel checks the thread that makes the ring.
fn has_ipc_lock() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective_capabilities(&status).is_some_and(|set| set & (1 << CAP_IPC_LOCK) != 0)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        assert_eq!(
            effective_capabilities("Name:\tx\nCapEff:\t0000000000004000\n"),
            Some(1 << CAP_IPC_LOCK)
        );
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
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
        assert!(Memlock { privileged: true, ..memlock(0, 0) }.suffices());
    }
}
