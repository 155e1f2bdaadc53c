//! Memory for network and disk I/O that the kernel and the program share.
//!
// Its code is compiled below, where all features are on.
#![cfg_attr(not(doctest), doc = include_str!("../README.md"))]
//!
//! # The layers, and the items of each
//!
//! **1. The arena**: memory and ownership. No kernel, and no unsafe code in a program.
//!
//! * building: [`FixedArena`], [`BuddyArena`], [`FixedArenaBuilder`], [`BuddyArenaBuilder`],
//!   [`BuddyGeometry`], [`Backing`], [`PageSize`], [`InitPolicy`], [`Unfaulted`]
//! * claims of one thread, without locked instructions: [`LocalArena`]
//! * memory of the caller: [`SlotSpec`], [`BuddyHint`], [`Dealloc`], [`HeapDealloc`], [`NoDealloc`]
//! * writing and reading: [`Buffer`], [`ArenaBytes`], [`BytesExt`]
//! * waiting for memory: [`AsyncFixedArena`], [`AsyncBuddyArena`], [`NotifyWaiters`],
//!   [`NotifyRegistration`], [`Waiter`], [`BuddyWaiter`], [`WaitRegistration`]
//! * watching: [`FixedArenaMetrics`], [`BuddyArenaMetrics`], [`SlotStates`], [`SlotState`],
//!   [`SlotMap`], [`SlotRange`], [`BlockCounts`], [`Location`], [`RegionLocation`]
//! * who holds the slots (feature `holders`): [`TrackHolders`], [`Holders`], [`Holder`],
//!   [`HolderGroup`], [`HolderAlarm`]
//! * giving memory back: [`TrimReport`], [`TrimObstacle`]
//! * metrics of all parts as one tree: [`Metrics`], [`MetricsPart`], [`Metric`], [`MetricKind`],
//!   [`MetricUnit`], [`HasMetrics`]
//! * errors: [`BuildError`], [`AllocError`], [`BufferFullError`]
//!
//! **2. Pieces for a ring of your own**: they build entries and interpret completions.
//!
//! * registering an arena: [`RegisteredArena`], [`Registrable`], [`RegisterOptions`],
//!   [`RegistrationPolicy`], [`RegistrationMode`]
//! * reading, writing, sending: [`Operation`], [`InFlight`], [`IoMemory`], [`Payload`],
//!   [`Descriptor`], [`SendOptions`], [`Progress`], [`Completion`]
//! * `O_DIRECT`: [`DirectFile`], [`DirectAlignment`]
//! * receiving: [`BufferRing`], [`BufferRingOptions`], [`Received`], [`Datagram`], [`FromSlot`],
//!   [`Status`], [`BufferRingMetrics`]
//! * addresses of datagrams: [`Address`], [`Addressed`], [`DatagramDetails`], [`Destination`]
//! * asking the kernel: [`Probe`], [`Feature`], [`Memlock`], [`ring_info`]
//! * errors: [`RegisterError`], [`RingError`], [`DirectError`], [`MissingFeatureError`],
//!   [`UnavailableError`]
//!
//! **3. The driver**: a ring and the pieces, safe through and through.
//!
//! * running: [`Driver`], [`DriverBuilder`], [`Event`]
//! * naming: [`ArenaId`], [`BufferRingId`], [`FileId`], [`OperationId`], [`SocketId`], [`TimerId`],
//!   [`HasToken`], [`SendOn`]
//! * watching: [`DriverMetrics`], [`SocketSnapshot`], [`SocketState`], [`DrainReport`]
//! * errors: [`DriverError`], [`FileError`], [`SocketError`], [`SubmitError`], [`TransferError`]
//!
//! Each runtime has a module behind the feature of its name: [`tokio`], [`mod@tokio_uring`],
//! [`compio`], [`monoio`]. [`Loan`] is the buffer that the last three take. The [`prelude`] has all
//! items, and no module.
#![deny(missing_docs)]
// The lists above name items of every feature.
#![cfg_attr(
    not(all(
        feature = "async-alloc",
        feature = "holders",
        feature = "tokio",
        feature = "tokio-uring",
        feature = "compio",
        feature = "monoio"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
// Without the kernel side some of the core's hooks have no user.
#![cfg_attr(
    any(not(feature = "io-uring"), not(target_os = "linux"), uring_arena_loom),
    allow(dead_code)
)]
// The documentation tells of each item which feature and system it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(
    any(feature = "tokio-uring", feature = "compio", feature = "monoio"),
    not(target_os = "linux")
))]
compile_error!(
    "the features tokio-uring, compio and monoio of uring-arena need Linux: turn them on under \
     [target.'cfg(target_os = \"linux\")'.dependencies] only"
);

/// The pages with code, which is compiled by `cargo test --doc --all-features`.
#[cfg(all(
    doctest,
    feature = "io-uring",
    feature = "holders",
    feature = "tokio",
    target_os = "linux"
))]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/containers.md")]
    mod containers {}
    #[doc = include_str!("../docs/first-programs.md")]
    mod first_programs {}
    #[doc = include_str!("../docs/integrations.md")]
    mod integrations {}
    #[doc = include_str!("../docs/migration.md")]
    mod migration {}
    #[doc = include_str!("../docs/production.md")]
    mod production {}
    #[doc = include_str!("../docs/sizing.md")]
    mod sizing {}
}

#[macro_use]
mod macros;

mod arena;
mod buffer;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod driver;
mod lease;
mod metrics;
pub mod prelude {
    //! The structs, enums, traits and functions of the [root](crate), without its modules.
    //!
    //! The modules of the root are named after runtimes: behind `use uring_arena::*` the name
    //! `tokio` means [`uring_arena::tokio`](crate::tokio). A glob import of the prelude hides no
    //! crate's name.
    //!
    //! ```
    //! use uring_arena::prelude::*;
    //!
    //! let arena = FixedArena::new(8, 4096)?;
    //! let buffer = arena.allocate()?;
    //! # drop(buffer);
    //! # Ok::<(), Box<dyn std::error::Error>>(())
    //! ```

    // Hidden, because the page of the root lists the items.
    #[doc(hidden)]
    pub use crate::items::*;
}
pub mod reexports {
    //! The crates whose types stand in the interface of this one, in the versions that it uses.
    //!
    //! Entries and completions of [`io_uring`] are taken by the pieces, and slots freeze into
    //! [`bytes::Bytes`].
    //!
    //! ```
    //! use uring_arena::{FixedArena, reexports::bytes::Bytes};
    //!
    //! let bytes: Bytes = FixedArena::new(8, 4096)?.allocate()?.freeze().into();
    //! assert!(bytes.is_empty());
    //! # Ok::<(), Box<dyn std::error::Error>>(())
    //! ```

    pub use bytes;
    #[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
    pub use io_uring;
}
mod region;
mod runtime;
mod slab;
mod slots;
mod sync;
#[cfg(all(unix, not(uring_arena_loom)))]
mod system;
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod uring;
mod wait;

/// The public items but the modules: the root and the prelude export them.
mod items {
    pub use crate::arena::{
        AllocError, BlockCounts, BuddyArena, BuddyArenaBuilder, BuddyArenaMetrics, BuddyGeometry,
        BuddyHint, FixedArena, FixedArenaBuilder, FixedArenaMetrics, InitPolicy, LocalArena,
        Location, RegionLocation, SlotMap, SlotRange, SlotSpec, SlotStates, Unfaulted,
    };
    #[cfg(feature = "async-alloc")]
    pub use crate::arena::{
        AsyncBuddyArena, AsyncFixedArena, BuddyWaiter, NotifyRegistration, NotifyWaiters,
        WaitRegistration, Waiter,
    };
    pub use crate::buffer::{ArenaBytes, Buffer, BufferFullError, BytesExt};
    #[cfg(not(uring_arena_loom))]
    pub use crate::buffer::{IoMemory, Payload};
    #[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
    pub use crate::driver::{
        ArenaId, BufferRingId, DrainReport, Driver, DriverBuilder, DriverError, DriverMetrics,
        Event, FileError, FileId, HasToken, OperationId, SendOn, SocketError, SocketId,
        SocketSnapshot, SocketState, SubmitError, TimerId, TransferError,
    };
    #[cfg(feature = "holders")]
    pub use crate::lease::{Holder, HolderAlarm, HolderGroup, Holders, TrackHolders};
    pub use crate::lease::{SlotState, TrimObstacle, TrimReport};
    pub use crate::metrics::{HasMetrics, Metric, MetricKind, MetricUnit, Metrics, MetricsPart};
    pub use crate::region::{Backing, BuildError, Dealloc, HeapDealloc, NoDealloc, PageSize};
    #[cfg(all(
        any(all(feature = "io-uring", target_os = "linux"), feature = "tokio"),
        unix,
        not(uring_arena_loom)
    ))]
    pub use crate::system::SendOptions;
    #[cfg(all(
        any(feature = "io-uring", feature = "tokio"),
        target_os = "linux",
        not(uring_arena_loom)
    ))]
    pub use crate::system::{DirectAlignment, DirectError, DirectFile};
    #[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
    pub use crate::uring::{
        Address, Addressed, BufferRing, BufferRingMetrics, BufferRingOptions, Completion, Datagram,
        DatagramDetails, Descriptor, Destination, Feature, FromSlot, InFlight, Memlock,
        MissingFeatureError, Operation, Probe, Progress, Received, RegisterError, RegisterOptions,
        RegisteredArena, Registrable, RegistrationMode, RegistrationPolicy, RingError, Status,
        UnavailableError, ring_info,
    };

    #[cfg(all(
        any(feature = "tokio-uring", feature = "compio", feature = "monoio"),
        target_os = "linux"
    ))]
    pub use crate::runtime::Loan;
}

pub use items::*;
#[cfg(all(feature = "compio", target_os = "linux"))]
pub use runtime::compio;
#[cfg(all(feature = "monoio", target_os = "linux"))]
pub use runtime::monoio;
#[cfg(all(feature = "tokio", unix))]
pub use runtime::tokio;

#[cfg(all(feature = "tokio", not(unix)))]
compile_error!(
    "the feature `tokio` of uring-arena needs a Unix: on Windows read into buffers of an arena by tokio's own calls (`read_buf`), which needs no feature"
);
#[cfg(all(feature = "tokio-uring", target_os = "linux"))]
pub use runtime::tokio_uring;
