//! Reading past the page cache: how many reads a second, and what does each cost the processor?

mod compare;
mod figures;
mod file;
mod fio;
mod plan;
mod registering;
mod systems;

pub use compare::{draw, run, work};
