//! The runtimes, each behind its feature, and a loop without any.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "async-alloc")]
#[cfg(any(feature = "compio", feature = "monoio", feature = "tokio", feature = "tokio-uring"))]
mod adapters;
#[cfg(all(feature = "tokio", feature = "async-alloc"))]
mod cancel_safety;
#[cfg(feature = "async-alloc")]
#[cfg(any(feature = "compio", feature = "monoio", feature = "tokio", feature = "tokio-uring"))]
mod cases;
#[cfg(feature = "compio")]
mod compio;
#[cfg(feature = "compio")]
mod compio_loans;
mod empty;
mod fork;
#[cfg(feature = "monoio")]
mod monoio;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod own_loop;
#[cfg(feature = "tokio")]
mod panics;
#[cfg(all(feature = "tokio", feature = "io-uring"))]
mod pool_datagrams;
#[cfg(feature = "tokio")]
mod pool_end;
#[cfg(feature = "tokio")]
mod pool_engines;
#[cfg(feature = "tokio")]
mod pool_errors;
#[cfg(feature = "tokio")]
mod pool_files;
#[cfg(feature = "tokio")]
mod pool_panics;
#[cfg(feature = "tokio")]
mod pool_sends;
#[cfg(feature = "tokio")]
mod pool_streams;
#[cfg(feature = "tokio")]
mod pool_watching;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(all(feature = "tokio", feature = "async-alloc"))]
mod tokio_resources;
#[cfg(feature = "tokio-uring")]
mod tokio_uring;
#[cfg(all(feature = "tokio", feature = "async-alloc"))]
mod tokio_wakes;
