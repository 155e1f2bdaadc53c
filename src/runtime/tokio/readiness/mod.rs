//! The engine on tokio's reactor: a socket that is ready takes a slot, and receives into it.

mod connection;
mod file;
mod flushing;
mod pool;
mod shared;
mod starved;

pub(super) use connection::{Connection, Reading};
pub(super) use file::BlockingFile;
pub(super) use flushing::send;
pub(super) use pool::Readiness;
