//! The error of an arena that could not be built.

use std::io;

/// The reason why an arena could not be built.
///
/// A variant without fields tells its numbers in an event of the `tracing` crate, at level `DEBUG`.
///
/// ```
/// use uring_arena::{BuildError, FixedArena};
///
/// let error = FixedArena::new(0, 4096).unwrap_err();
/// assert_eq!(error, BuildError::ZeroSize { name: "slot_count" });
/// assert_eq!(
///     error.to_string(),
///     "slot_count is zero: an arena has at least one slot or block of at least one byte"
/// );
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The slot count times the slot size, or their rounding up, does not fit in `usize`.
    #[error("total arena size does not fit in usize: use fewer or smaller slots")]
    SizeOverflow,
    /// A size is zero.
    #[error("{name} is zero: an arena has at least one slot or block of at least one byte")]
    ZeroSize {
        /// The name of the parameter.
        name: &'static str,
    },
    /// The alignment is not a power of two.
    #[error("alignment must be a power of two, such as 1, 512 or 4096: 4096 serves O_DIRECT")]
    InvalidAlignment,
    /// The memory of the caller does not start on a multiple of the alignment.
    #[error(
        "memory at address {address:#x} is not aligned to {alignment} bytes: allocate it with that alignment (Layout::from_size_align), or ask for less"
    )]
    MisalignedMemory {
        /// The address of the first byte.
        address: usize,
        /// The alignment asked for, in bytes.
        alignment: usize,
    },
    /// The buddy geometry is not a power-of-two multiple of a power-of-two smallest block, or the
    /// alignment is larger than its smallest block.
    #[error(
        "buddy geometry must be a power-of-two multiple of a power-of-two smallest block, which is at least the alignment: BuddyGeometry::nearest rounds up to one"
    )]
    InvalidGeometry,
    /// One slot is larger than the memory that it should lie in.
    #[error("one slot is larger than the memory given: use a smaller slot or more memory")]
    SlotSizeExceedsBacking,
    /// The memory is too small for even one slot or block after alignment.
    #[error(
        "no slot or block fits in the memory given, after alignment: give more memory, or use smaller slots or a smaller alignment"
    )]
    ZeroUsableSlots,
    /// `from_raw` was given a null pointer.
    #[error("the memory given to from_raw is a null pointer: was its allocation refused?")]
    NullPointer,
    /// There are more slots or smallest blocks than one arena can number: 2²⁵ − 1024 slots, or 2²⁶
    /// smallest blocks. Nothing was allocated.
    #[error(
        "{requested} slots are more than the {limit} that one arena can number: use larger slots or several arenas"
    )]
    TooManySlots {
        /// The slots asked for.
        requested: usize,
        /// The most slots that one arena can have.
        limit: usize,
    },
    /// The operating system refused the memory.
    #[error(
        "the system refused {bytes} bytes for the arena ({reason}): ask for less, or raise the limit (ulimit -v, vm.overcommit_memory)"
    )]
    OutOfMemory {
        /// The bytes asked for.
        bytes: usize,
        /// The system's answer.
        reason: String,
    },
    /// No huge page of this size is left in the system's pool.
    #[error(
        "the system has no room for {bytes} bytes in huge pages of {page_bytes} bytes: reserve them with `{remedy}`, or use transparent huge pages"
    )]
    HugePagesUnavailable {
        /// The bytes asked for.
        bytes: usize,
        /// The size of one huge page in bytes.
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
        /// The system's answer.
        reason: String,
    },
    /// The platform does not have the backing that was asked for.
    #[error("this backing needs {needs}: use Backing::Heap here")]
    BackingUnsupported {
        /// The need of the backing.
        needs: &'static str,
    },
}

debug_is_display!(BuildError);
into_io_error!(BuildError);

impl BuildError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            BuildError::OutOfMemory { .. } | BuildError::HugePagesUnavailable { .. } => {
                io::ErrorKind::OutOfMemory
            }
            BuildError::NumaNodeUnavailable { .. } => io::ErrorKind::NotFound,
            BuildError::BackingUnsupported { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidInput,
        }
    }
}
