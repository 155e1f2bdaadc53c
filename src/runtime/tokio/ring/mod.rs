//! The engine on io_uring.

pub(crate) mod dispatcher;
pub(crate) mod engine;
pub(crate) mod mailbox;
pub(crate) mod stream_queue;
pub(crate) mod thread;
