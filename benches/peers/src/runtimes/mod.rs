//! Inside the runtimes: the cost of our memory beside the runtime's own, in the same loop.

mod part;
mod reads;
mod workers;

pub use part::part;
