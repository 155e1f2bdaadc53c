//! Buffer rings: slots of an arena that the kernel fills by itself, and the bytes that come back.

mod complete;
mod datagram;
mod entries;
mod error;
mod from_slot;
mod options;
mod plain_lengths;
mod posted;
mod receive_entries;
mod received;
mod reconcile;
mod refill;
mod register;
mod ring;

#[cfg(test)]
mod fake_kernel;
#[cfg(test)]
mod fake_kernel_tests;

pub(crate) use complete::Cursor;
pub use complete::Received;
pub(crate) use datagram::DATAGRAM_HEADER_BYTES;
pub use datagram::Datagram;
pub use error::RingError;
pub use from_slot::FromSlot;
pub use options::BufferRingOptions;
pub use received::Status;
pub use ring::{BufferRing, BufferRingMetrics};
