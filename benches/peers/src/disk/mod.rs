//! Reading past the page cache: reads a second, and the cost of each to the processor.

mod cases;
mod load;
mod part;
mod registering;
mod systems;

pub use cases::sample_of_fio;
pub use part::part;
