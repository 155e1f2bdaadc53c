//! Memory for network and disk I/O that the kernel and the program share.
//!
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod arena;
mod buffer;
pub mod error;
mod lease;
mod region;
mod runtime;
mod slots;
mod sync;

pub use arena::{
    BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint, FixedArena,
    FixedArenaBuilder, FixedArenaMetrics, InitPolicy, Location, RegionLocation, SlotSpec, Unfaulted,
};
pub use buffer::{ArenaBytes, Buffer, BytesExt};
pub use error::{AllocError, BufferFullError, BuildError};
pub use region::{Backing, Dealloc, HeapDealloc, NoDealloc, PageSize};

#[cfg(feature = "compio")]
pub use runtime::compio;
#[cfg(feature = "monoio")]
pub use runtime::monoio;
#[cfg(feature = "tokio-uring")]
pub use runtime::tokio_uring;
#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
pub use runtime::{Lend, Loan};
