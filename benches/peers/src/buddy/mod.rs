//! Blocks of any length: what do they cost, and what is left of the arena after long use?

mod cases;
mod churn;
mod compare;
mod figures;
mod fragmentation;
mod memory;
mod ours;
mod random;
mod teams;

pub use compare::{by_threads, run};
