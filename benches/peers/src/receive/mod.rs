//! Receiving over TCP: what does a message cost, from the socket to dropped memory?

mod compare;
mod dropper;
mod far_ends;
mod figures;
mod goal;
mod idle;
mod instructions;
mod lockstep;
mod outlet;
mod plots;
mod shape;
mod systems;
mod wire;

pub use compare::{Metric, one_turn, rows_of, run, start_all, work};
pub use plots::draw;
pub use shape::Shape;
pub use systems::{System, arena};
pub use wire::Wire;
