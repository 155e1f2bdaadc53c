//! Buffer rings: slots of an arena that the kernel chooses and fills, and the bytes that come back.

mod complete;
mod depth;
mod entries;
mod options;
mod posted;
mod pressure;
mod received;
mod register;
mod ring;

#[cfg(test)]
mod fake_kernel;

pub(crate) use complete::Remaining;
pub use options::BufferRingOptions;
pub(crate) use options::GROUP_FIRST;
pub use options::RingError;
#[cfg(feature = "tokio")]
pub(crate) use received::{DATAGRAMS_MAX, Inbox};
pub use received::{Datagram, DatagramDetails};
pub use received::{FromSlot, Received, Status};
pub use ring::{BufferRing, BufferRingMetrics};
