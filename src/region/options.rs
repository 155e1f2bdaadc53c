//! Where an arena's memory comes from.

use super::PageSize;

/// Where an arena's memory comes from.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{Backing, FixedArena};
///
/// let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(65536).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes)
///     .backing(Backing::TransparentHuge)
///     .build()?;
/// assert_eq!(arena.slot_count(), 64);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// An anonymous private mapping: page-aligned, zero, shared with nobody. The default
    /// ([mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html)). Elsewhere than on Linux: the
    /// heap.
    #[default]
    Anonymous,
    /// The global allocator.
    Heap,
    /// An anonymous mapping on 2 MiB boundaries that asks for transparent huge pages
    /// (`MADV_HUGEPAGE`, [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html)).
    /// Where the system has switched them off it is an ordinary mapping.
    TransparentHuge,
    /// Huge pages of 2 MiB from the system's reserved pool (`MAP_HUGETLB`, `vm.nr_hugepages`).
    Huge2MiB,
    /// Huge pages of 1 GiB from the system's reserved pool (`MAP_HUGETLB`).
    Huge1GiB,
}

/// All that decides about the memory of an arena.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request {
    pub(crate) backing: Backing,
    pub(crate) page_size: PageSize,
    pub(crate) numa_node: Option<u32>,
    pub(crate) keep_from_children: bool,
}
