//! The reasons why there is no io_uring, each with its remedy.

/// An io_uring that cannot be used here, with the cause and the remedy.
///
/// ```
/// use uring_arena::UnavailableError;
///
/// let error = UnavailableError::DisabledBySysctl { value: 2 };
/// assert!(error.to_string().contains("`sysctl kernel.io_uring_disabled=0`"));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableError {
    /// The kernel has no io_uring (`ENOSYS`).
    #[error(
        "this kernel ({kernel}) has no io_uring: it needs Linux 5.1 or newer, built with CONFIG_IO_URING; \
         a container sandbox may also hide it"
    )]
    NotInKernel {
        /// The version that the kernel reports.
        kernel: String,
    },
    /// The administrator switched io_uring off ([kernel.io_uring_disabled], Linux 6.6).
    ///
    /// [kernel.io_uring_disabled]:
    /// https://docs.kernel.org/admin-guide/sysctl/kernel.html#io-uring-disabled
    #[error("io_uring is switched off: {}", who_forbids(Some(*value)))]
    DisabledBySysctl {
        /// The value of the sysctl. 1: off for all but one group and CAP_SYS_ADMIN; 2: off for all.
        value: u32,
    },
    /// A seccomp filter or a security module refuses the call, although the sysctl allows it.
    #[error(
        "io_uring is refused (EPERM) though kernel.io_uring_disabled allows it: {}",
        who_forbids(None)
    )]
    Forbidden,
    /// The system has no memory, or no descriptor, for a ring.
    #[error(
        "the system refused a ring of {entries} entries ({}): {}",
        std::io::Error::from_raw_os_error(*errno),
        room_remedy(*errno)
    )]
    Refused {
        /// The number of entries asked for.
        entries: u32,
        /// The error number of `io_uring_setup(2)`.
        errno: i32,
    },
}

debug_is_display!(UnavailableError);

impl UnavailableError {
    /// Explains the error of an `io_uring_setup(2)` for a ring of `entries` entries.
    pub(super) fn explain(entries: u32, errno: i32) -> UnavailableError {
        let kernel = read("/proc/sys/kernel/osrelease");
        UnavailableError::new(entries, errno, disabled_by_sysctl(), kernel)
    }

    fn new(
        entries: u32,
        errno: i32,
        disabled: Option<u32>,
        kernel: Option<String>,
    ) -> UnavailableError {
        match (errno, disabled) {
            (libc::ENOSYS, _) => UnavailableError::NotInKernel {
                kernel: kernel.unwrap_or_else(|| "of unknown version".into()),
            },
            (libc::EPERM, Some(value @ 1..)) => UnavailableError::DisabledBySysctl { value },
            (libc::EPERM | libc::EACCES, _) => UnavailableError::Forbidden,
            _ => UnavailableError::Refused { entries, errno },
        }
    }
}

/// Returns what forbids a ring, and the remedy, by the value of `kernel.io_uring_disabled`.
pub(crate) fn who_forbids(sysctl: Option<u32>) -> &'static str {
    match sysctl {
        Some(1) => {
            "kernel.io_uring_disabled=1; run with CAP_SYS_ADMIN, or as a member of the group in \
             `sysctl kernel.io_uring_group`, or `sysctl kernel.io_uring_disabled=0`"
        }
        Some(2..) => {
            "kernel.io_uring_disabled=2; nobody may use it until `sysctl kernel.io_uring_disabled=0`"
        }
        Some(0) | None => {
            "a seccomp filter or a security module forbids io_uring_setup, as container runtimes do by default; \
             use a profile that allows io_uring_setup, io_uring_enter and io_uring_register \
             (docker: --security-opt seccomp=PROFILE)"
        }
    }
}

/// Returns the remedy if the system has no room for a ring.
pub(crate) fn room_remedy(errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => "raise `ulimit -n`, or close some files",
        libc::ENFILE => "raise `sysctl fs.file-max`",
        _ => {
            "use fewer entries, or before Linux 5.12, where rings count as locked memory, raise `ulimit -l`"
        }
    }
}

/// Returns the value of `kernel.io_uring_disabled`, or `None` before Linux 6.6, which has no such
/// sysctl.
pub(crate) fn disabled_by_sysctl() -> Option<u32> {
    read("/proc/sys/kernel/io_uring_disabled")?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_with_its_remedy() {
        let text = |errno, disabled| {
            let text = UnavailableError::new(64, errno, disabled, Some("5.0.0".into())).to_string();
            assert!(!text.contains("  "), "a run of blanks: {text}");
            text
        };
        assert!(text(libc::ENOSYS, None).contains("5.0.0"));
        assert!(text(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(text(libc::EPERM, Some(1)).contains("kernel.io_uring_group"));
        assert!(text(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(text(libc::EPERM, None).contains("seccomp"));
        assert!(text(libc::ENOMEM, Some(0)).contains("ulimit -l"));
        assert!(text(libc::EMFILE, Some(0)).contains("64 entries"));
        assert!(text(libc::EMFILE, Some(0)).contains("ulimit -n"));
    }
}
