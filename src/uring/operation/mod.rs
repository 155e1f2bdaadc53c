//! Operations: reads, writes and sends that own their memory until the kernel is done with it.

mod addressed;
mod in_flight;
mod operation;
mod read_write;
mod send;

pub use addressed::{Addressed, Destination};
#[cfg(feature = "tokio")]
pub(crate) use addressed::{send_datagram, send_datagrams};
pub use in_flight::{Completion, InFlight};
pub use operation::Descriptor;
pub use operation::{Operation, Progress};
pub(crate) use read_write::RANGES_MAX;
