//! Whole programs from the examples, beside the same program written the usual way.

mod echo;
mod echo_bare;
#[path = "../../../../examples/custom_runtime/executor.rs"]
#[allow(dead_code)] // the timers are not used here
mod executor;
mod ingest;
mod part;
#[path = "../../../../examples/custom_runtime/ring.rs"]
#[allow(dead_code)] // nobody is accepted here
mod ring;
mod stream;

pub use part::part;
