//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
mod kernel;

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use kernel::{DirectError, MissingFeatureError, RegisterError, UnavailableError};

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::driver::{DriverError, FileError, SubmitError, TransferError};

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
