//! The fixed arena beside what it replaces: claim, write, freeze, drop.

mod batch;
mod by_hand;
mod cases;
mod claim_drop;
mod compare;
mod figures;
mod fill;
mod full;
mod hand_over;
mod heap;
mod ours;
mod peers;
mod plots;
mod pool;
mod puts;
mod round_trip;
mod spill;
mod threads;
mod zero;

pub use compare::{by_threads, run, work};
pub use plots::draw;
