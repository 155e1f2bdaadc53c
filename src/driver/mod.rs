//! The safe driver: owns a ring, and everything under way on it. Uses `uring` and below.
//!
//! * `driver`, `requests`, `turn`: the face, by what a program calls when.
//! * `socket`: receives and accepts. `transfer`: reads, writes and sends.
//! * `rings`, `arenas`, `files`: what is registered with the ring.
//! * `submitter`, `wakeup`, `tag`: the way into the kernel and back.

mod arenas;
mod builder;
mod driver;
mod error;
mod event;
mod files;
mod ids;
mod metrics;
mod requests;
mod rings;
mod socket;
mod submitter;
mod transfer;
mod turn;
mod wakeup;

pub use builder::DriverBuilder;
pub use driver::Driver;
pub use error::{DriverError, FileError, SocketError, SubmitError, TransferError};
pub use event::Event;
pub use ids::{ArenaId, BufferRingId, FileId, OperationId, SocketId};
pub use metrics::DriverMetrics;
pub use turn::DrainReport;
