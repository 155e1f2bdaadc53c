//! The engine on io_uring: a driver, and what carries commands to it and bytes from it.

mod datagrams;
mod dispatcher;
mod engine;
mod handles;
mod mailbox;
mod stream_queue;

pub(super) use datagrams::{DatagramCommand, Outgoing};
pub(super) use engine::RingOptions;
pub(super) use handles::{RingFile, RingSender, RingSource, connect, receive};
pub(super) use mailbox::{Command, EngineHandle, Place};
pub(super) use stream_queue::StreamQueue;

use crate::uring::check_calls;

/// The build has the ring.
pub(super) const IS_BUILT: bool = true;

/// Checks that the system allows the calls of io_uring. Returns what forbids them, and the remedy.
pub(super) fn check() -> Result<(), String> {
    check_calls().map_err(|error| error.to_string())
}
