//! Memory for network and disk I/O that the kernel and the program share.
//!
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod arena;
mod buffer;
pub mod error;
mod lease;
mod region;
mod slots;
mod sync;

pub use arena::{
    BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint, FixedArena,
    FixedArenaBuilder, FixedArenaMetrics, InitPolicy, Location, RegionLocation, SlotSpec, Unfaulted,
};
pub use buffer::{ArenaBytes, Buffer, BytesExt};
pub use error::{AllocError, BufferFullError, BuildError};
pub use region::{Backing, Dealloc, HeapDealloc, NoDealloc, PageSize};
