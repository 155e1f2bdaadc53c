//! The memory of an arena: mapping, borrowing, faulting in, scrubbing, giving back.
//!
//! This folder uses nothing but `sync`, and is the only one that maps and unmaps.

mod build_error;
#[cfg(target_os = "linux")]
mod mapping;
mod options;
mod process;
mod region;

pub use build_error::BuildError;
#[cfg(all(test, feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use options::fake_page;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use options::system_page_bytes;
pub use options::{Backing, PageSize};
pub(crate) use options::{InChildren, RegionOptions};
#[cfg(any(
    all(any(feature = "io-uring", feature = "tokio-uring"), target_os = "linux"),
    all(feature = "tokio", unix)
))]
pub(crate) use process::Process;
pub use region::{Dealloc, HeapDealloc, NoDealloc};
pub(crate) use region::{Region, scrub};
