//! 5 FRONT DOOR: the arenas, their builders and their numbers. Uses everything above.

mod buddy;
mod buddy_builder;
mod buddy_geometry;
mod buddy_metrics;
mod fixed;
mod fixed_builder;
mod metrics;
mod policy;
mod regions;
mod spec;
mod unfaulted;

pub use buddy::BuddyArena;
pub use buddy_builder::BuddyArenaBuilder;
pub use buddy_geometry::{BuddyGeometry, BuddyHint};
pub use buddy_metrics::BuddyArenaMetrics;
pub use fixed::{FixedArena, Location};
pub use fixed_builder::FixedArenaBuilder;
pub use metrics::FixedArenaMetrics;
pub use policy::InitPolicy;
pub use regions::RegionLocation;
pub use spec::SlotSpec;
pub use unfaulted::Unfaulted;
