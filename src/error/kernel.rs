//! What the kernel side can refuse.

use crate::uring::DirectError;
pub(super) use crate::uring::{room_remedy, who_forbids};

/// A read, write or send that a [`Driver`](crate::Driver) could not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The file is not one of this driver's, or was closed.
    #[error("no such file in this driver: it belongs to another driver or was closed")]
    UnknownFile,
    /// The buffer is full.
    #[error(
        "the buffer has no room left: its {capacity} bytes are all written; clear it, or give a new one"
    )]
    NoRoom {
        /// Bytes that the buffer holds.
        capacity: usize,
    },
    /// The file is open with `O_DIRECT`, and place or memory are not what it asks for.
    #[error(transparent)]
    Direct(#[from] DirectError),
    /// The driver could not take it.
    #[error(transparent)]
    Driver(#[from] super::DriverError),
}

/// Memory that comes back with the reason why nothing was done with it.
///
/// ```
/// use uring_arena::{Buffer, SubmitError};
///
/// fn again(refused: SubmitError<Buffer>) -> Buffer {
///     eprintln!("{refused}");
///     refused.memory
/// }
/// # let _ = again;
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct SubmitError<M> {
    /// Why.
    pub error: TransferError,
    /// The memory, as it was given.
    pub memory: M,
}

impl<M> std::fmt::Debug for SubmitError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmitError").field("error", &self.error).finish_non_exhaustive()
    }
}

/// A file or socket that a [`Driver`](crate::Driver) could not take.
#[derive(Debug, thiserror::Error)]
#[error("the driver cannot take the file: {reason}")]
#[non_exhaustive]
pub struct FileError {
    /// What asking the file answered.
    pub reason: std::io::Error,
}

#[cfg(test)]
mod tests {
    use crate::DriverError;

    #[test]
    fn who_forbids_io_uring_is_told_with_what_mends_it() {
        let text = |sysctl| DriverError::Forbidden { errno: libc::EPERM, sysctl }.to_string();
        assert!(
            text(Some(2)).contains("kernel.io_uring_disabled=2; nobody may"),
            "{}",
            text(Some(2))
        );
        assert!(text(Some(1)).contains("kernel.io_uring_group"), "{}", text(Some(1)));
        assert!(text(Some(0)).contains("seccomp"), "{}", text(Some(0)));
        assert!(text(None).contains("seccomp"), "{}", text(None));
        let text = |errno| DriverError::NoRoom { entries: 64, errno }.to_string();
        assert!(
            text(libc::EMFILE).contains("64 entries") && text(libc::EMFILE).contains("ulimit -n")
        );
        assert!(text(libc::ENOMEM).contains("fewer entries"));
    }
}
