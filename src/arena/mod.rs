//! The arenas, their builders and their numbers.
//!
//! `fixed` and `buddy` have the same files; the files here serve both. This folder uses `buffer`
//! and the folders below it.

mod buddy;
mod builder;
mod counts;
mod fixed;
mod slot_states;
mod unfaulted;
#[cfg(feature = "async-alloc")]
mod wait_policy;

#[cfg(feature = "async-alloc")]
pub use buddy::AsyncBuddyArena;
pub use buddy::{
    BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint, RegionLocation,
};
pub use builder::AllocError;
pub use builder::InitPolicy;
#[cfg(feature = "async-alloc")]
pub use fixed::AsyncFixedArena;
pub use fixed::{FixedArena, FixedArenaBuilder, FixedArenaMetrics, LocalArena, Location, SlotSpec};
pub use slot_states::{BlockCounts, SlotMap, SlotRange, SlotStates};
pub use unfaulted::Unfaulted;
#[cfg(feature = "async-alloc")]
pub use wait_policy::{BuddyWaiter, NotifyRegistration, NotifyWaiters, WaitRegistration, Waiter};
