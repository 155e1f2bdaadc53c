//! The safe driver: owns a ring, and everything under way on it. Uses `uring` and below.
//!
//! * `driver`, `requests`, `turn`: the face, by what a program calls when.
//! * `socket`: receives, accepts and connects. `transfer`: everything else, on files and sockets.
//! * `rings`, `arenas`, `files`: what is registered with the ring. `durability`: writes and syncs.
//! * `timers`: timers, deadlines, idle timeouts.
//! * `submitter`, `wakeup`, `tag`: the way into the kernel and back.

mod arenas;
mod builder;
mod driver;
mod durability;
mod error;
mod event;
mod files;
mod ids;
mod metrics;
mod requests;
mod rings;
mod socket;
mod submitter;
mod timers;
mod transfer;
mod turn;
mod wakeup;

pub use builder::DriverBuilder;
pub use driver::Driver;
pub use error::{DriverError, FileError, SocketError, SubmitError, TransferError};
pub use event::Event;
pub use ids::{ArenaId, BufferRingId, FileId, HasToken, OperationId, SendOn, SocketId, TimerId};
pub use metrics::{DriverMetrics, SocketSnapshot, SocketState};
pub use turn::DrainReport;
