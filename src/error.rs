//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod kernel;

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use kernel::{
    DirectError, FileError, MissingFeatureError, RegisterError, SubmitError, TransferError,
    UnavailableError,
};

/// A buffer ring that could not be made, or taken down.
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The number of entries is not one that the kernel takes.
    #[error("{entries} entries: a buffer ring has a power of two of them, from 1 to {limit}")]
    Entries {
        /// Entries asked for.
        entries: usize,
        /// Entries that a ring has at most.
        limit: usize,
    },
    /// The arena has more slots than buffer ids.
    #[error(
        "an arena of {slots} slots cannot feed a buffer ring: a buffer id numbers {limit} of them; use larger slots or several arenas"
    )]
    TooManySlots {
        /// Slots of the arena.
        slots: usize,
        /// Slots that a buffer id can number.
        limit: usize,
    },
    /// One slot is larger than the length field of a ring entry.
    #[error(
        "slots of {bytes} bytes are larger than the {limit} bytes that a ring entry can tell: use smaller slots"
    )]
    SlotTooLarge {
        /// Bytes in each slot.
        bytes: usize,
        /// Bytes that one entry can tell.
        limit: usize,
    },
    /// The group id has a ring already.
    #[error(
        "buffer group {group} is taken on this ring: choose another one, or let the driver choose"
    )]
    GroupTaken {
        /// The group id asked for.
        group: u16,
    },
    /// Sockets receive into the ring.
    #[error(
        "{sockets} sockets receive into this ring: close them, and take their `Closed` events, first"
    )]
    InUse {
        /// Sockets that receive into it.
        sockets: usize,
    },
    /// The ring is not one of this driver's, or was taken down.
    #[error("no such buffer ring in this driver: it belongs to another driver or was taken down")]
    Unknown,
    /// The driver has a ring for every group id that it chooses from.
    #[error("all {limit} buffer groups of this driver are in use: use another driver")]
    NoGroupLeft {
        /// Groups that one driver can have.
        limit: usize,
    },
    /// The kernel cannot do it.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// No memory for the ring, or the user may lock no more.
    #[error(
        "no memory for a buffer ring of {bytes} bytes: it counts against RLIMIT_MEMLOCK (now {soft} bytes for this user, `ulimit -l`); raise the limit or use fewer entries"
    )]
    Memory {
        /// Bytes of the ring's array of entries.
        bytes: usize,
        /// The soft limit now, in bytes.
        soft: u64,
    },
    /// The kernel refused for another reason.
    #[error("the kernel refused to {action}: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
}

/// A driver that could not be made, or an operation that it could not take.
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// io_uring is switched off for this user or this container.
    #[error("io_uring is forbidden here ({}): {}", std::io::Error::from_raw_os_error(*errno), kernel::who_forbids(*sysctl))]
    #[non_exhaustive]
    Forbidden {
        /// The error number.
        errno: i32,
        /// What `kernel.io_uring_disabled` says, where there is one (Linux 6.6): 1 or 2 if it is
        /// what forbids.
        sysctl: Option<u32>,
    },
    /// The system has no memory, or no descriptor, for a ring.
    #[error(
        "the system has no room for a ring of {entries} entries ({}): {}",
        std::io::Error::from_raw_os_error(*errno),
        kernel::room_remedy(*errno)
    )]
    NoRoom {
        /// Entries asked for.
        entries: u32,
        /// The error number.
        errno: i32,
    },
    /// The kernel has no io_uring, or one that is too old.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// The number of entries is not one that the kernel takes.
    #[error(
        "{entries} entries: a submission queue has from 1 to {limit} of them, a completion queue twice as many"
    )]
    Entries {
        /// Entries asked for.
        entries: usize,
        /// Entries that a queue has at most.
        limit: usize,
    },
    /// Every place in the table of operations is taken.
    #[error(
        "{limit} operations are under way, which is all that this driver was built for: finish some, or build it with more `operations`"
    )]
    TooManyOperations {
        /// Operations that the table holds.
        limit: usize,
    },
    /// The ring is not one of this driver's, or was taken down.
    #[error("no such buffer ring in this driver: it belongs to another driver or was taken down")]
    UnknownRing,
    /// The arena is not one of this driver's, or was unregistered.
    #[error(
        "no such arena in this driver: it is registered with another driver or was unregistered"
    )]
    UnknownArena,
    /// The file is not one of this driver's, or was closed.
    #[error("no such file in this driver: it belongs to another driver or was closed")]
    UnknownFile,
    /// The operation is not one of this driver's, or is over.
    #[error("no such operation in this driver: it belongs to another driver or is over")]
    UnknownOperation,
    /// The socket is not one of this driver's, or is closed.
    #[error("no such socket in this driver: it belongs to another driver or is closed")]
    UnknownSocket,
    /// A slot has no room for a datagram behind its header.
    #[error(
        "slots of {bytes} bytes have no room for a datagram behind its header: at least {needed} bytes are needed"
    )]
    SlotTooSmall {
        /// Bytes in a slot.
        bytes: usize,
        /// Bytes that it takes.
        needed: usize,
    },
    /// Several messages share a slot in this ring.
    #[error(
        "this ring lets several messages share a slot (`incremental`), which datagrams cannot: use another ring"
    )]
    RingIsIncremental,
    /// A system call failed.
    #[error("{action} failed: {}", std::io::Error::from_raw_os_error(*errno))]
    System {
        /// What was tried.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
}
