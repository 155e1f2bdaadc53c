//! The memory of an arena: mapping, borrowing, faulting in, scrubbing, giving back.
//!
//! This folder uses nothing but `sync`, and is the only one that maps and unmaps.

mod build_error;
mod dealloc;
#[cfg(target_os = "linux")]
mod mapping;
mod region;

pub use build_error::BuildError;
pub use dealloc::{Dealloc, HeapDealloc, NoDealloc};
pub(crate) use mapping::RegionOptions;
pub use mapping::{Backing, PageSize};
pub(crate) use region::{Region, scrub};
