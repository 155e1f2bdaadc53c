//! The memory of an arena: mapping, borrowing, faulting in, scrubbing, giving back.
//!
//! This folder uses nothing but `sync`, and is the only one that maps and unmaps.

mod building;
#[cfg(target_os = "linux")]
mod mapping;
mod process;
mod region;

#[cfg(all(test, feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use building::fake_page;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use building::system_page_bytes;
pub use building::{Backing, BuildError, PageSize};
pub(crate) use building::{InChildren, RegionOptions};
#[cfg(any(
    all(
        any(feature = "io-uring", feature = "tokio-uring"),
        target_os = "linux",
        not(uring_arena_loom)
    ),
    all(feature = "tokio", unix)
))]
pub(crate) use process::Process;
pub use region::{Dealloc, HeapDealloc, NoDealloc};
pub(crate) use region::{Region, scrub};
