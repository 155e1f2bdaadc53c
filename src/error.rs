//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::driver::{DriverError, FileError, SubmitError, TransferError};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::uring::{
    DirectError, MissingFeatureError, RegisterError, RingError, UnavailableError,
};

#[cfg(feature = "tokio")]
pub use crate::arena::AllocError;

/// Bytes that do not fit in a [`Buffer`](crate::Buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffer full: {requested} bytes requested, {remaining} bytes remaining")]
#[non_exhaustive]
pub struct BufferFullError {
    /// Bytes remaining in the buffer.
    pub remaining: usize,
    /// Bytes that were requested.
    pub requested: usize,
}
