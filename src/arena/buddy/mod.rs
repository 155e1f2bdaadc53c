//! The arena of blocks of variable size.

mod arena;
mod builder;
mod geometry;
mod metrics;
#[cfg(feature = "async-alloc")]
mod waiting;

pub use arena::{BuddyArena, RegionLocation};
pub use builder::BuddyArenaBuilder;
pub use geometry::{BuddyGeometry, BuddyHint};
pub use metrics::BuddyArenaMetrics;
#[cfg(feature = "async-alloc")]
pub use waiting::AsyncBuddyArena;
