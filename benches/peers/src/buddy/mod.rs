//! Blocks of any length: their cost, and what is left of the arena after long use.

mod cases;
mod memory;
mod part;

pub use part::{by_threads, part};
