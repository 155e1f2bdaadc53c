//! What can go wrong, one enum per operation.

#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::driver::{DriverError, FileError, SubmitError, TransferError};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub use crate::uring::{
    DirectError, MissingFeatureError, RegisterError, RingError, UnavailableError,
};

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
