//! The engine on io_uring: a driver, and what carries commands to it and bytes from it.

mod datagrams;
mod dispatcher;
mod engine;
mod handles;
mod mailbox;
mod stream_queue;

pub(super) use datagrams::{DatagramCommand, Outgoing};
pub(super) use engine::{IS_BUILT, RingOptions, check};
pub(super) use handles::{RingFile, RingSender, RingSource, connect, receive};
pub(super) use mailbox::{Command, EngineHandle, Place};
pub(super) use stream_queue::StreamQueue;
