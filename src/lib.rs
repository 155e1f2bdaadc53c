//! Memory for network and disk I/O that the kernel and the program share.
#![deny(missing_docs)]

mod arena;
mod buffer;
pub mod error;
mod lease;
mod region;
mod slots;
mod sync;

#[cfg(feature = "async-alloc")]
pub use arena::{AsyncFixedArena, BuddyWaiter, NotifyRegistration, NotifyWaiters, WaitRegistration, Waiter};
pub use arena::{
    FixedArena, FixedArenaBuilder, FixedArenaMetrics, InitPolicy, Location, SlotSpec, Unfaulted,
};
pub use buffer::{ArenaBytes, Buffer, BytesExt};
pub use error::{AllocError, BufferFullError, BuildError};
pub use region::{Backing, Dealloc, HeapDealloc, NoDealloc, PageSize};
