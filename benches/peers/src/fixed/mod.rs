//! The fixed arena beside what it replaces: claim, write, freeze, drop.

mod by_hand;
mod cases;
mod drain;
mod part;
mod pool;
mod pools;

pub use part::{by_threads, part};
