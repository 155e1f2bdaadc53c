//! Ownership: the lease of a claimed slot, and how it is freed.
//!
//! A claimed slot has exactly one owner, its [`Lease`]; only the drop of the lease frees the slot.
//! This folder uses `region`, `slots` and `wait`.

mod batch;
mod batch_owner;
mod claim;
mod core;
mod counts;
mod free;
mod handle;
mod header;
mod holder_table;
#[cfg(feature = "holders")]
mod holders;
mod lease;
#[cfg(all(test, uring_arena_loom))]
#[allow(unsafe_code)] // `from_raw` is the way to see that the memory is given back
mod models;
#[cfg(not(uring_arena_loom))]
mod registry;
mod run;
mod stats;
mod trim;
mod waiter;

pub(crate) use self::batch_owner::{BATCH_MAX, SlotBatch};
pub(crate) use self::core::{Core, CoreOptions};
pub use counts::CopyCharge;
#[cfg(any(
    all(feature = "tokio", feature = "io-uring", target_os = "linux"),
    all(test, uring_arena_loom)
))]
pub(crate) use counts::UnreadSlots;
pub(crate) use handle::Handle;
#[cfg(feature = "async-alloc")]
pub(crate) use handle::WeakHandle;
pub(crate) use header::{Header, SPILL, ZERO};
#[cfg(feature = "holders")]
pub(crate) use holder_table::HolderOptions;
pub(crate) use holder_table::Place;
#[cfg(feature = "holders")]
pub use holders::{Holder, HolderAlarm, HolderGroup, Holders, TrackHolders};
pub(crate) use lease::Lease;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use lease::SlotPtr;
pub(crate) use run::Run;
#[cfg(not(uring_arena_loom))]
pub(crate) use run::{quarantine_at, slots_at};
pub(crate) use stats::ClaimedSlot;
pub use stats::SlotState;
pub(crate) use trim::Trim;
pub use trim::{TrimObstacle, TrimReport};
#[cfg(feature = "async-alloc")]
pub(crate) use waiter::WaitElsewhere;
pub(crate) use waiter::WaitForSlot;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use waiter::Watch;
