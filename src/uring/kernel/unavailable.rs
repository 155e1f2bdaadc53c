//! Why there is no io_uring, and what mends it.

use crate::error::UnavailableError;

/// Explains the error of `io_uring_setup(2)`.
pub(crate) fn unavailable(entries: u32, errno: i32) -> UnavailableError {
    let kernel = read("/proc/sys/kernel/osrelease");
    explain(
        entries,
        errno,
        disabled_by_sysctl(),
        &kernel.unwrap_or_else(|| "of unknown version".into()),
    )
}

/// What `kernel.io_uring_disabled` says; `None` where there is no such setting (before Linux 6.6).
pub(crate) fn disabled_by_sysctl() -> Option<u32> {
    read("/proc/sys/kernel/io_uring_disabled")?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The same, of what was read.
fn explain(entries: u32, errno: i32, disabled: Option<u32>, kernel: &str) -> UnavailableError {
    match (errno, disabled) {
        (libc::ENOSYS, _) => UnavailableError::NotInKernel { kernel: kernel.into() },
        (libc::EPERM, Some(value @ 1)) => UnavailableError::DisabledBySysctl {
            value,
            remedy: "run with CAP_SYS_ADMIN, or as a member of the group in `sysctl kernel.io_uring_group`, \
                     or `sysctl kernel.io_uring_disabled=0`"
                .into(),
        },
        (libc::EPERM, Some(value)) if value >= 2 => UnavailableError::DisabledBySysctl {
            value,
            remedy: "nobody may use it until `sysctl kernel.io_uring_disabled=0`".into(),
        },
        (libc::EPERM | libc::EACCES, _) => UnavailableError::Forbidden,
        (libc::ENOMEM, _) => UnavailableError::Refused {
            entries,
            reason: "no memory (ENOMEM): before Linux 5.12 rings count as locked memory, raise `ulimit -l` or use fewer entries"
                .into(),
        },
        (libc::EMFILE, _) => UnavailableError::Refused {
            entries,
            reason: "too many open files (EMFILE): raise `ulimit -n` or close some".into(),
        },
        (libc::EINVAL, _) => UnavailableError::Refused {
            entries,
            reason: "not a valid size or setting (EINVAL): entries must be 1 to 32768".into(),
        },
        _ => UnavailableError::Refused {
            entries,
            reason: std::io::Error::from_raw_os_error(errno).to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_with_its_remedy() {
        let text = |errno, disabled| explain(64, errno, disabled, "5.0.0").to_string();
        assert!(text(libc::ENOSYS, None).contains("5.0.0"));
        assert!(text(libc::EPERM, Some(2)).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(text(libc::EPERM, Some(1)).contains("kernel.io_uring_group"));
        assert!(text(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(text(libc::EPERM, None).contains("seccomp"));
        assert!(text(libc::ENOMEM, Some(0)).contains("ulimit -l"));
        assert!(text(libc::EMFILE, Some(0)).contains("ulimit -n"));
    }
}
