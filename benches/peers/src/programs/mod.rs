//! Whole programs from the examples, beside the same program written the usual way.

mod compare;
mod echo;
mod ingest;

pub use compare::{run, work};
