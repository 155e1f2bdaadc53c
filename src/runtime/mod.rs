//! The adapters: an arena on the runtimes that programs use, each behind its feature.

#[cfg(all(
    any(feature = "tokio-uring", feature = "compio", feature = "monoio"),
    target_os = "linux"
))]
mod liveness;
#[cfg(all(
    any(feature = "tokio-uring", feature = "compio", feature = "monoio"),
    target_os = "linux"
))]
mod loan;
#[cfg(all(any(feature = "tokio-uring", feature = "compio"), target_os = "linux"))]
mod transfer;

#[cfg(all(feature = "compio", target_os = "linux"))]
pub mod compio;
#[cfg(all(feature = "monoio", target_os = "linux"))]
pub mod monoio;
#[cfg(all(feature = "tokio", unix))]
pub mod tokio;
#[cfg(all(feature = "tokio-uring", target_os = "linux"))]
pub mod tokio_uring;

#[cfg(all(
    any(feature = "tokio-uring", feature = "compio", feature = "monoio"),
    target_os = "linux"
))]
pub use loan::Loan;
