//! The choices about the memory of an arena, and the error of one that could not be built; and the
//! size of the system's pages.
//!
//! # Safety
//!
//! Unsafe here: asking the C library for that size.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;

/// The source of an arena's memory.
///
/// # Forked children
///
/// A child shares the pages of an anonymous mapping with its parent until one of the two writes.
/// With huge pages each such write needs a spare one in the system's pool. Without one the child is
/// killed (`SIGBUS`): at its own write, and at its next access after a write of the parent. While
/// the memory is registered with a ring, the child gets its copies at once. Then fork(2) fails
/// (`ENOMEM`) without enough spare pages. Measured on Linux 6.18.
///
/// **Keep an arena on huge pages from children**
/// ([`keep_from_children`](crate::FixedArenaBuilder::keep_from_children)), and preferably any that
/// is registered. [`std::process::Command`] concerns no arena unless it runs code of the program in
/// the child (`pre_exec`): it copies no memory.
///
/// ```
/// use uring_arena::{Backing, FixedArena};
///
/// let arena = FixedArena::with_sizes(64, 65536).backing(Backing::TransparentHuge).build()?;
/// assert_eq!(arena.slot_count(), 64);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// An anonymous private mapping: page-aligned, zero, not shared. The default
    /// ([mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html)). On other systems than Linux:
    /// the heap.
    #[default]
    Anonymous,
    /// The global allocator.
    Heap,
    /// An anonymous mapping on 2 MiB boundaries that asks for transparent huge pages
    /// (`MADV_HUGEPAGE`, [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html)).
    /// An ordinary mapping where the system has switched huge pages off.
    TransparentHuge,
    /// Huge pages of 2 MiB from the system's reserved pool (`MAP_HUGETLB`, `vm.nr_hugepages`). A
    /// [forked child](Backing#forked-children) needs spare ones.
    Huge2MiB,
    /// Huge pages of 1 GiB from the system's reserved pool (`MAP_HUGETLB`). A
    /// [forked child](Backing#forked-children) needs spare ones.
    Huge1GiB,
}

/// A way to make the pages of an arena present when the arena is built.
///
/// ```
/// use uring_arena::{FixedArena, PageSize};
///
/// // Touch nothing now; the kernel brings each page in on first use.
/// let arena = FixedArena::with_sizes(16, 4096).page_size(PageSize::Unknown).build()?;
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageSize {
    /// No page is touched when the arena is built.
    Unknown,
    /// The system's page size (`sysconf(_SC_PAGESIZE)`), in one kernel call where there is one
    /// (`MADV_POPULATE_WRITE`, Linux 5.14). The default.
    #[default]
    Auto,
    /// Pages of this many bytes.
    Size(NonZeroUsize),
}

/// All choices about the memory of an arena.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RegionOptions {
    pub(crate) backing: Backing,
    pub(crate) page_size: PageSize,
    pub(crate) numa_node: Option<u32>,
    pub(crate) in_children: InChildren,
}

/// The pages that a forked child finds in place of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InChildren {
    /// Copies.
    #[default]
    Copied,
    /// None: the child must not touch the memory.
    Absent,
    /// Pages of zeros, which are the child's own; none where the kernel cannot.
    #[cfg_attr(not(feature = "io-uring"), allow(dead_code, reason = "for the rings of buffers"))]
    Zeroed,
}

/// Returns the size of an ordinary page of the system in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn system_page_bytes() -> usize {
    #[cfg(test)]
    if let Some(bytes) = fake_page::bytes() {
        return bytes;
    }
    real_page_bytes()
}

/// Returns the size of a page of this machine, whatever a test makes up.
#[cfg(target_os = "linux")]
pub(super) fn real_page_bytes() -> usize {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Returns the smallest size of a page in bytes that any system has.
#[cfg(not(target_os = "linux"))]
pub(crate) fn system_page_bytes() -> usize {
    4096
}

/// A page size that a test makes up for its thread, as a kernel of another machine would have it.
#[cfg(all(test, target_os = "linux"))]
pub(crate) mod fake_page {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) fn bytes() -> Option<usize> {
        BYTES.get()
    }

    /// Runs `test` with pages of so many bytes, a multiple of the real ones.
    pub(crate) fn with<T>(bytes: usize, test: impl FnOnce() -> T) -> T {
        BYTES.set(Some(bytes));
        let answer = test();
        BYTES.set(None);
        answer
    }
}

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
