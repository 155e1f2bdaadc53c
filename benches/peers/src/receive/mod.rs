//! Receiving over TCP: the cost of a message, from the socket to dropped memory.

mod cases;
mod far_ends;
mod lockstep;
mod part;
mod receiver;
mod systems;
mod wire;

pub use cases::Receiving;
pub use far_ends::far_ends;
pub use part::part;
pub use systems::{SYSTEMS, arena};
pub use wire::{Shape, Wire, allow_descriptors};
