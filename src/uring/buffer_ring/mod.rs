//! Buffer rings: slots of an arena that the kernel chooses and fills, and the bytes that come back.

mod complete;
mod datagram;
mod entries;
mod error;
mod options;
mod posted;
mod received;
mod register;
mod ring;

#[cfg(test)]
mod fake_kernel;
#[cfg(test)]
mod fake_kernel_tests;

pub(crate) use complete::Remaining;
pub(crate) use datagram::DATAGRAM_HEADER_BYTES;
pub use datagram::Datagram;
pub use error::RingError;
pub use options::BufferRingOptions;
pub use received::{FromSlot, Received, Status};
pub use ring::{BufferRing, BufferRingMetrics};
