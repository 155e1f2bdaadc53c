//! What does an echo server cost on the runtime of `examples/custom_runtime`, beside the same
//! server on the bare io-uring crate?

mod bare;
mod compare;
#[path = "../../../../../examples/custom_runtime/executor.rs"]
#[allow(dead_code)] // the timers are not used here
mod executor;
#[path = "../../../../../examples/custom_runtime/ring.rs"]
#[allow(dead_code)] // nobody is accepted here
mod ring;
mod server;
mod tasks;

pub use compare::{compare, work};
