//! 8 ADAPTERS: the arena at home in the runtimes people use, each behind its feature. Uses
//! everything above.

#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
mod loan;
#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
mod session;

#[cfg(feature = "compio")]
pub mod compio;
#[cfg(feature = "monoio")]
pub mod monoio;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;

#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
pub use loan::Loan;
