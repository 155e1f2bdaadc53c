//! Waiting for memory: its cost without need, and the time of a wake.

mod arenas;
mod cases;
mod part;
mod wakes;

pub use part::part;
