//! 5 FRONT DOOR: the arenas, their builders and their numbers. Uses everything above.

#[cfg(feature = "async-alloc")]
mod async_buddy;
#[cfg(feature = "async-alloc")]
mod async_fixed;
mod buddy;
mod buddy_builder;
mod buddy_geometry;
mod buddy_metrics;
mod fixed;
mod fixed_builder;
mod metrics;
#[cfg(feature = "async-alloc")]
mod notify_waiters;
mod policy;
mod regions;
mod setters;
mod slot_states;
mod spec;
mod timeout;
mod unfaulted;
#[cfg(feature = "async-alloc")]
mod waiter;

#[cfg(feature = "async-alloc")]
pub use async_buddy::AsyncBuddyArena;
#[cfg(feature = "async-alloc")]
pub use async_fixed::AsyncFixedArena;
pub use buddy::BuddyArena;
pub use buddy_builder::BuddyArenaBuilder;
pub use buddy_geometry::{BuddyGeometry, BuddyHint};
pub use buddy_metrics::BuddyArenaMetrics;
pub use fixed::{FixedArena, Location};
pub use fixed_builder::FixedArenaBuilder;
pub use metrics::FixedArenaMetrics;
#[cfg(feature = "async-alloc")]
pub use notify_waiters::{NotifyRegistration, NotifyWaiters};
pub use policy::InitPolicy;
pub use regions::RegionLocation;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use slot_states::OnRing;
pub use slot_states::SlotStates;
pub use spec::SlotSpec;
pub use unfaulted::Unfaulted;
#[cfg(feature = "async-alloc")]
pub use waiter::{BuddyWaiter, WaitRegistration, Waiter};
