//! The calls of the system beside rings: on sockets, and on files that are open with `O_DIRECT`.
//! Works on every Unix; uses `buffer` and below.

#[cfg(target_os = "linux")]
mod direct;
mod socket;

#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) use direct::TRANSFER_BYTES_MAX;
#[cfg(all(any(feature = "io-uring", feature = "tokio"), target_os = "linux"))]
pub use direct::{DirectAlignment, DirectError, DirectFile};
#[cfg(any(all(feature = "io-uring", target_os = "linux"), feature = "tokio"))]
pub use socket::SendOptions;
#[cfg(all(feature = "io-uring", feature = "tokio", target_os = "linux"))]
pub(crate) use socket::queued_bytes;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) use socket::unsent_bytes;
#[cfg_attr(
    not(all(feature = "io-uring", feature = "tokio", target_os = "linux")),
    allow(unused_imports, reason = "each feature uses some of them")
)]
pub(crate) use socket::{
    disconnect, is_tcp_closed, limit_standstill, reset_or_shut_down, set_linger, set_option,
    shut_down, socket_option, socket_type, to_result,
};
