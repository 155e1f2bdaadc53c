//! The arenas as a user sees them, without io_uring.

#[path = "../support/mod.rs"]
mod support;

mod aging;
mod arena_proptest;
mod auto_traits;
mod buddy;
mod errors;
mod fixed;
mod fork;
mod local;
mod prelude;
#[cfg(target_os = "linux")]
mod refusals;
mod sizes;
mod slot_states;
mod spills;
mod timeouts;
mod zero;
