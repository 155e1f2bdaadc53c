//! Waiting for memory: a fair queue, and memory reserved for large requests.
//!
//! This folder knows indices only: no memory, no lease, no kernel. It uses `sync` and `slots`.

#[cfg(all(test, uring_arena_loom))]
mod models;
mod queue;
mod reservation;
#[cfg(all(test, not(uring_arena_loom)))]
mod tests;
mod waiters;
mod wakes;

#[cfg(feature = "async-alloc")]
pub(crate) use queue::{Polled, TicketQueue};
pub(crate) use queue::{WaitCounts, WaiterId, WatchId};
pub(crate) use waiters::{OnFree, Pressure, Waiters, drop_waker};
#[cfg(any(feature = "async-alloc", feature = "tokio"))]
pub(crate) use wakes::{Panicked, WakeList};
