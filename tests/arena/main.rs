//! The arenas as a user sees them, without io_uring.

#[path = "../support/mod.rs"]
mod support;

mod aging;
mod arena_proptest;
mod auto_traits;
mod buddy;
mod errors;
mod events;
mod fixed;
mod fork;
#[cfg(feature = "holders")]
mod holders;
mod local;
mod metrics;
mod prelude;
#[cfg(target_os = "linux")]
mod refusals;
mod sizes;
mod slot_states;
mod spills;
mod timeouts;
#[cfg(all(target_os = "linux", not(miri)))]
mod trim;
mod zero;
