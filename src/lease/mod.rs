//! 3 OWNERSHIP: the lease, and its one way home.
//!
//! A claimed slot has exactly one owner, its [`Lease`]; dropping it is the only road back. Uses
//! `region` and `slots`.

mod allocator;
mod core;
mod handle;
mod header;
mod hoard;
mod lease;
mod ledger;
mod lifetime;
#[cfg(not(uring_arena_loom))]
mod quarantine;
#[cfg(not(uring_arena_loom))]
mod registry;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod slot_ptr;
mod stats;
mod waiter;
mod waiters;

pub(crate) use self::core::{Core, CoreOptions};
pub(crate) use allocator::Allocator;
pub(crate) use handle::Handle;
pub(crate) use header::{SPILL, ZERO};
pub(crate) use lease::Lease;
#[cfg(not(uring_arena_loom))]
pub(crate) use quarantine::quarantine_at;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use slot_ptr::SlotPtr;
pub(crate) use stats::ClaimedSlot;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use waiter::Bell;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
#[allow(unused_imports, reason = "a ring that waits holds one")]
pub(crate) use waiter::WaitForSlot;
pub(crate) use waiters::OnFree;

#[cfg(all(test, uring_arena_loom))]
#[allow(unsafe_code)] // `from_raw` is the way to see the memory come home
mod loom_tests;
#[cfg(all(test, uring_arena_loom))]
mod loom_waiting;
