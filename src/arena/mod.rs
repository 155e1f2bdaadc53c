//! 5 FRONT DOOR: the arenas, their builders and their numbers. Uses everything above.

#[cfg(feature = "async-alloc")]
mod async_fixed;
mod fixed;
mod fixed_builder;
mod metrics;
#[cfg(feature = "async-alloc")]
mod notify_waiters;
mod policy;
mod spec;
mod timeout;
mod unfaulted;
#[cfg(feature = "async-alloc")]
mod waiter;

#[cfg(feature = "async-alloc")]
pub use async_fixed::AsyncFixedArena;
pub use fixed::{FixedArena, Location};
pub use fixed_builder::FixedArenaBuilder;
pub use metrics::FixedArenaMetrics;
#[cfg(feature = "async-alloc")]
pub use notify_waiters::{NotifyRegistration, NotifyWaiters};
pub use policy::InitPolicy;
pub use spec::SlotSpec;
pub use unfaulted::Unfaulted;
#[cfg(feature = "async-alloc")]
pub use waiter::{BuddyWaiter, WaitRegistration, Waiter};
