//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::driver::{DriverError, FileError, SubmitError, TransferError};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::uring::{
    DirectError, MissingFeatureError, RegisterError, RingError, UnavailableError,
};
