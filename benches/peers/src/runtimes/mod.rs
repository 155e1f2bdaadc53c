//! At home in a runtime: what does our memory cost beside the runtime's own, in the same loop?

mod compare;
mod figures;
mod readers;
mod reads;
mod receiving;
mod workers;

pub use compare::{run, work};
