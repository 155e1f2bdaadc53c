//! The arena of equal slots.

mod arena;
mod builder;
mod local;
mod metrics;
#[cfg(feature = "async-alloc")]
mod waiting;

pub use arena::{FixedArena, Location};
pub use builder::{FixedArenaBuilder, SlotSpec};
pub use local::LocalArena;
pub use metrics::FixedArenaMetrics;
#[cfg(feature = "async-alloc")]
pub use waiting::AsyncFixedArena;
