//! What does it cost to bring a stream from a socket to disk: from the slot it arrived in, or
//! through tokio's buffers?

mod compare;
mod ours;
mod stream;
mod systems;
mod tokio;

pub use compare::{compare, work};
