//! 5 FRONT DOOR: the arenas, their builders and their numbers. Uses everything above.

mod buddy;
mod builder;
mod fixed;
#[cfg(feature = "async-alloc")]
mod notify_waiters;
mod policy;
mod regions;
mod slot_states;
mod spec;
mod timeout;
mod unfaulted;
#[cfg(feature = "async-alloc")]
mod wait_policy;

#[cfg(feature = "async-alloc")]
pub use buddy::AsyncBuddyArena;
pub use buddy::{BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint};
#[cfg(feature = "async-alloc")]
pub use fixed::AsyncFixedArena;
pub use fixed::{FixedArena, FixedArenaBuilder, FixedArenaMetrics, Location};
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
pub use wait_policy::{BuddyWaiter, WaitRegistration, Waiter};
