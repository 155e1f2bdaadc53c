//! 6 KERNEL: pieces for any ring: they build entries and interpret completions; the caller owns the ring and pushes.
//!
//! Uses `arena` and above.

mod buffer_ring;
mod delivered;
mod event_fd;
mod receive;
mod ring_entries;
mod ring_options;
mod shadow;

pub use buffer_ring::{BufferRing, BufferRingMetrics};
pub use delivered::Delivered;
pub(crate) use event_fd::EventFd;
pub(crate) use receive::Cursor;
pub use receive::{Received, Status};
pub use ring_options::BufferRingOptions;
