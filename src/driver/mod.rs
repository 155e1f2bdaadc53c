//! 7 A RING: the safe driver over the pieces.
//!
//! Uses `uring` and above. It owns the ring, so it knows which completion is whose, which descriptor is still open, and when
//! nothing is in flight any more.

mod accept;
mod builder;
mod driver;
mod event;
mod key;
mod metrics;
mod operation_table;
mod receive;
mod rings;
mod shutdown;
mod starved;

pub use builder::DriverBuilder;
pub use driver::Driver;
pub use event::{BufferRingId, Event, SocketId};
pub use metrics::DriverMetrics;
pub use shutdown::Drained;
