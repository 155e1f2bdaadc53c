//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod kernel;

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::uring::{
    DirectError, MissingFeatureError, RegisterError, RingError, UnavailableError,
};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use kernel::{FileError, SubmitError, TransferError};

/// A claim that could not be served.
// As wide as the word of a `Buffer` whose place it takes in a `Result`: a narrower one makes the
// compiler move that word in pieces.
#[repr(usize)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Every slot, or every block that is large enough, is in use now; a later claim may be served.
    #[error("arena is full: every slot or block that fits is in use; drop buffers or wait for one")]
    ArenaFull,
    /// The arena could not serve this length even if it were empty.
    #[error(
        "request is larger than the arena can ever serve: build it with a larger block or slot"
    )]
    RequestTooLarge,
}

/// An arena that could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Slot count times slot size, or their rounding up, does not fit in `usize`.
    #[error("total arena size does not fit in usize: use fewer or smaller slots")]
    SizeOverflow,
    /// The alignment is not a power of two, or the given memory does not have it.
    #[error(
        "alignment must be a power of two that divides the address of the memory: 4096 serves O_DIRECT"
    )]
    InvalidAlignment,
    /// The buddy geometry is not a power-of-two multiple of a power-of-two smallest block.
    #[error(
        "buddy geometry must be a power-of-two multiple of a power-of-two smallest block: BuddyGeometry::nearest rounds up to one"
    )]
    InvalidGeometry,
    /// One slot is larger than the memory it should lie in.
    #[error("one slot is larger than the memory given: use a smaller slot or more memory")]
    SlotSizeExceedsBacking,
    /// The memory is too small for even one slot or block after alignment.
    #[error("no slot or block fits in the memory given, after alignment: give more memory")]
    ZeroUsableSlots,
    /// `from_raw` was given a null pointer.
    #[error("the memory given to from_raw is a null pointer")]
    NullPointer,
    /// More slots than the books of one arena can number.
    #[error(
        "{requested} slots are more than the {limit} that one arena can number: use larger slots or several arenas"
    )]
    TooManySlots {
        /// Slots asked for.
        requested: usize,
        /// Slots that one arena can have.
        limit: usize,
    },
    /// The operating system refused the memory.
    #[error(
        "the system refused {bytes} bytes for the arena ({reason}): ask for less, or raise the limit (ulimit -v, vm.overcommit_memory)"
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system answered.
        reason: String,
    },
    /// No huge page of this size is left in the system's pool.
    #[error(
        "the system has no room for {bytes} bytes in huge pages of {page_bytes} bytes: reserve them with `{remedy}`, or use transparent huge pages"
    )]
    HugePagesUnavailable {
        /// Bytes asked for.
        bytes: usize,
        /// Size of one huge page in bytes.
        page_bytes: usize,
        /// The command that reserves enough of them.
        remedy: String,
    },
    /// The kernel would not place the memory on this NUMA node.
    #[error(
        "memory cannot be placed on NUMA node {node} ({reason}): `numactl --hardware` lists the nodes"
    )]
    NumaNodeUnavailable {
        /// The node asked for.
        node: u32,
        /// What the system answered.
        reason: String,
    },
    /// A backing that this platform does not have was asked for.
    #[error("this backing needs {needs}: use Backing::Heap here")]
    BackingUnsupported {
        /// What the backing needs.
        needs: &'static str,
    },
}

/// Bytes that do not fit in a [`Buffer`](crate::Buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffer full: {requested} bytes requested, {remaining} bytes remaining")]
#[non_exhaustive]
pub struct BufferFullError {
    /// Bytes remaining in the buffer.
    pub remaining: usize,
    /// Bytes that were requested.
    pub requested: usize,
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
