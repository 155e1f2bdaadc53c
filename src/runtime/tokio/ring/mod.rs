//! The engine on io_uring: a driver, and what carries commands to it and bytes from it.

mod datagrams;
mod dispatcher;
mod engine;
mod id_map;
mod mailbox;
mod stream_queue;

pub(super) use datagrams::{DatagramCommand, Outgoing};
pub use engine::PoolError;
pub(super) use engine::{EngineOptions, TaskEngine, ThreadEngine};
pub(super) use mailbox::{Command, EngineHandle, FileKey, Place, Receive};
pub(super) use stream_queue::StreamQueue;
