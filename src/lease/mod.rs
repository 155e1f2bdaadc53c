//! 3 OWNERSHIP: the lease, and its one way home.
//!
//! A claimed slot has exactly one owner, its [`Lease`]; dropping it is the only road back. Uses
//! `region` and `slots`.

mod books;
mod census;
mod core;
mod handle;
mod header;
mod hoard;
mod lease;
mod ledger;
mod lifetime;
mod place;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod start;
mod waiters;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod witness;

pub(crate) use self::core::{Core, Plan};
pub(crate) use books::Books;
pub(crate) use census::Owned;
pub(crate) use handle::Handle;
pub(crate) use header::{SPILL, ZERO};
pub(crate) use lease::Lease;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use place::Bell;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use start::Start;
pub(crate) use waiters::FreeHook;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use witness::Witness;

#[cfg(all(test, uring_arena_loom))]
#[allow(unsafe_code)] // `from_raw` is the way to see the memory come home
mod loom_tests;
#[cfg(all(test, uring_arena_loom))]
mod loom_waiting;
