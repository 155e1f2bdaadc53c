//! Waiting for memory: what does it cost when there is no need, and how long does a wake take when
//! there is?

mod compare;
mod figures;
mod latency;
mod many_words;
mod ours;
mod systems;
mod uncontended;

pub use compare::{run, work};
