//! 7 A RING: the safe driver over the pieces.
//!
//! Uses `uring` and above. It owns the ring, so it knows which completion is whose, which
//! descriptor is still open, and when nothing is in flight any more.

mod accept;
mod arenas;
mod builder;
mod close;
mod driver;
mod event;
mod files;
mod key;
mod metrics;
mod next;
mod operation_table;
mod pause;
mod push;
mod receive;
mod received;
mod rings;
mod settle;
mod shutdown;
mod slot_states;
mod starved;
mod transfer;
mod transfers;

pub use arenas::ArenaId;
pub use builder::DriverBuilder;
pub use driver::Driver;
pub use event::{BufferRingId, Event, OperationId, SocketId};
pub use files::FileId;
pub use metrics::DriverMetrics;
pub use shutdown::DrainReport;
