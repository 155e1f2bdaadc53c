//! The adapters: an arena on the runtimes that programs use, each behind its feature.

#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
mod liveness;
#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
mod loan;
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
mod transfer;

#[cfg(feature = "compio")]
pub mod compio;
#[cfg(feature = "monoio")]
pub mod monoio;
#[cfg(all(feature = "tokio", unix))]
pub mod tokio;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;

#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
pub use loan::Loan;
