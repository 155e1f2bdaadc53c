//! 5 FRONT DOOR: the arenas, their builders and their numbers. Uses everything above.

mod fixed;
mod fixed_builder;
mod metrics;
mod policy;
mod spec;
mod unfaulted;

pub use fixed::{FixedArena, Location};
pub use fixed_builder::FixedArenaBuilder;
pub use metrics::FixedArenaMetrics;
pub use policy::InitPolicy;
pub use spec::SlotSpec;
pub use unfaulted::Unfaulted;
