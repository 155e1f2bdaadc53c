//! Memory for network and disk I/O that the kernel and the program share.
//!
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
// Without the kernel side some of the core's hooks have no user.
#![cfg_attr(any(not(feature = "io-uring"), uring_arena_loom), allow(dead_code))]

#[macro_use]
mod macros;

mod arena;
mod buffer;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod driver;
mod error;
mod lease;
mod region;
mod runtime;
mod slab;
mod slots;
mod sync;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod uring;
mod wait;

pub use arena::{
    AllocError, BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry, BuddyHint,
    FixedArena, FixedArenaBuilder, FixedArenaMetrics, InitPolicy, Location, RegionLocation,
    SlotSpec, SlotStates, Unfaulted,
};
#[cfg(feature = "async-alloc")]
pub use arena::{
    AsyncBuddyArena, AsyncFixedArena, BuddyWaiter, NotifyRegistration, NotifyWaiters,
    WaitRegistration, Waiter,
};
pub use buffer::{ArenaBytes, Buffer, BytesExt};
#[cfg(not(uring_arena_loom))]
pub use buffer::{IoMemory, Payload};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use driver::{
    ArenaId, BufferRingId, DrainReport, Driver, DriverBuilder, DriverMetrics, Event, FileId,
    OperationId, SocketId,
};
pub use error::BufferFullError;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use error::{
    DirectError, DriverError, FileError, MissingFeatureError, RegisterError, RingError,
    SubmitError, TransferError, UnavailableError,
};
pub use region::{Backing, BuildError, Dealloc, HeapDealloc, NoDealloc, PageSize};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use uring::{
    BufferRing, BufferRingMetrics, BufferRingOptions, Completion, Datagram, Descriptor,
    DirectAlignment, DirectFile, Feature, FromSlot, InFlight, Memlock, Operation, Probe, Progress,
    Received, RegisterOptions, RegisteredArena, Registrable, RegistrationMode, RegistrationPolicy,
    SendOptions, Status, ring_info,
};

#[cfg(any(feature = "tokio-uring", feature = "compio", feature = "monoio"))]
pub use runtime::Loan;
#[cfg(feature = "compio")]
pub use runtime::compio;
#[cfg(feature = "monoio")]
pub use runtime::monoio;
#[cfg(feature = "tokio")]
pub use runtime::tokio;
#[cfg(feature = "tokio-uring")]
pub use runtime::tokio_uring;
