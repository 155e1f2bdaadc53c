//! The engine on tokio's reactor: a socket that is ready takes a slot, and receives into it.

mod connection;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod datagrams;
mod pool;
mod shared;

pub(super) use connection::{Connection, Reading, send};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(super) use datagrams::{DatagramLink, ReceivingDatagrams};
pub(super) use pool::Readiness;
pub(super) use shared::Shared;
