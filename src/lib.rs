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
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod uring;

pub use arena::{
    BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint, FixedArena,
    FixedArenaBuilder, FixedArenaMetrics, InitPolicy, Location, RegionLocation, SlotSpec, Unfaulted,
};
pub use buffer::{ArenaBytes, Buffer, BytesExt};
pub use error::{AllocError, BufferFullError, BuildError};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub use error::{DirectError, MissingFeatureError, RegisterError, UnavailableError};
pub use region::{Backing, Dealloc, HeapDealloc, NoDealloc, PageSize};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub use uring::{
    Completion, Descriptor, DirectAlignment, DirectFile, Feature, InFlight, Memlock, Memory, Operation,
    Payload, Probe, Progress, RegisterOptions, RegisteredArena, Registrable, Rung, SendOptions, ring_info,
};
