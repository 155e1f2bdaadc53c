//! An anonymous mapping: page-aligned, zero, with the advice that the builder asked for; and the
//! process that a mapping, or anything else that forked children do not share, belongs to.
//!
//! # Safety
//!
//! Unsafe here: calls of the C library. A `Mapping` owns its pages: nothing else maps over or
//! unmaps them, and dropping it is the only way they go.
//! Unsafe here: reaching the mark of a process, which is never freed.
#![allow(unsafe_code)]

use super::build_error::BuildError;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// `MADV_POPULATE_WRITE`: Linux 5.14.
const MADV_POPULATE_WRITE: libc::c_int = 23;

/// `MPOL_BIND` of `mbind(2)`.
const MPOL_BIND: libc::c_int = 2;

/// A run of pages that belongs to this value.
// Invariants:
// 1. `start..start + len` is one private, writable, anonymous mapping.
// 2. Only `drop` unmaps it, and only where it is: something else may lie there in a forked child.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    page_bytes: usize,
    /// The process that alone has the pages, if its forked children have none.
    owner: Option<Process>,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this type gives no access to its
// bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference can only ask for the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `bytes` bytes starting on a multiple of `alignment`.
    pub(super) fn new(
        bytes: usize,
        alignment: usize,
        options: &RegionOptions,
    ) -> Result<Mapping, BuildError> {
        let (huge_bytes, flags) = match options.backing {
            Backing::Huge2MiB => (2 * MIB, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB),
            Backing::Huge1GiB => (GIB, libc::MAP_HUGETLB | libc::MAP_HUGE_1GB),
            _ => (0, 0),
        };
        let page_bytes = huge_bytes.max(system_page_bytes());
        let alignment = match options.backing {
            Backing::TransparentHuge => alignment.max(2 * MIB),
            _ => alignment,
        };
        let len = bytes.checked_next_multiple_of(page_bytes).ok_or(BuildError::SizeOverflow)?;
        // Room to move the start up to the alignment; `cut` unmaps the rest.
        let slack = if alignment > page_bytes { alignment } else { 0 };
        let mapped = len.checked_add(slack).ok_or(BuildError::SizeOverflow)?;
        let whole = map(mapped, flags).map_err(|error| match huge_bytes {
            0 => BuildError::OutOfMemory { bytes, reason: error.to_string() },
            _ => no_huge_pages(bytes, huge_bytes),
        })?;
        let mut mapping = whole.cut(alignment, len);
        mapping.page_bytes = page_bytes;
        mapping.advise(options)?;
        Ok(mapping)
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns true if this process has the pages: it is not a forked child without them.
    pub(super) fn is_here(&self) -> bool {
        self.owner.is_none_or(Process::is_current)
    }

    /// Keeps `len` bytes from the first multiple of `alignment` on and unmaps the rest.
    fn cut(self, alignment: usize, len: usize) -> Mapping {
        let before = self.start.as_ptr().align_offset(alignment);
        if before == 0 && len == self.len {
            return self;
        }
        let whole = std::mem::ManuallyDrop::new(self);
        debug_assert!(before + len <= whole.len);
        // SAFETY: `before + len <= whole.len`, so the start stays inside the mapping (invariant 1).
        let start = unsafe { whole.start.add(before) };
        // SAFETY: `before + len <= whole.len`, so the end is at most one past the mapping.
        let behind = unsafe { start.add(len) };
        unmap(whole.start, before);
        unmap(behind, whole.len - before - len);
        Mapping { start, len, page_bytes: whole.page_bytes, owner: None }
    }

    /// Returns the bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Gives the whole pages in a range back to the system
    /// ([madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html), `MADV_DONTNEED`; huge
    /// pages: Linux 5.18). Returns the bytes of these pages.
    ///
    /// # Safety
    ///
    /// The range lies in the mapping, nobody else uses it, and no page of it is pinned.
    pub(super) unsafe fn discard(&self, offset: usize, len: usize) -> io::Result<usize> {
        let first = offset.next_multiple_of(self.page_bytes);
        let end = (offset + len) / self.page_bytes * self.page_bytes;
        if first >= end {
            return Ok(0);
        }
        let start = self.start.as_ptr().wrapping_add(first).cast();
        // SAFETY: whole pages of this mapping (invariant 1), which begins on a page. Nobody uses
        // their bytes (the caller's promise).
        check(unsafe { libc::madvise(start, end - first, libc::MADV_DONTNEED) })?;
        Ok(end - first)
    }

    fn advise(&mut self, options: &RegionOptions) -> Result<(), BuildError> {
        if options.backing == Backing::TransparentHuge {
            // A kernel without huge pages refuses this: the mapping then has ordinary pages.
            let _ = self.madvise(libc::MADV_HUGEPAGE);
        }
        let zeroed = options.in_children == InChildren::Zeroed
            && self.madvise(libc::MADV_WIPEONFORK).is_ok();
        if options.in_children != InChildren::Copied && !zeroed {
            self.owner = Some(Process::current());
            self.madvise(libc::MADV_DONTFORK).map_err(|error| BuildError::OutOfMemory {
                bytes: self.len,
                reason: format!("keeping it out of forked children failed: {error}"),
            })?;
        }
        if let Some(node) = options.numa_node {
            self.bind(node).map_err(|error| BuildError::NumaNodeUnavailable {
                node,
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    fn madvise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping (invariant 1), and no advice used here changes bytes
        // that are in use.
        let answer = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) };
        check(answer)
    }

    /// Places the pages on one NUMA node
    /// ([mbind(2)](https://man7.org/linux/man-pages/man2/mbind.2.html)).
    fn bind(&self, node: u32) -> io::Result<()> {
        const WORD_BITS: usize = usize::BITS as usize;
        const NODES_MAX: usize = 1024;
        if node as usize >= NODES_MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut nodes = [0usize; NODES_MAX / WORD_BITS];
        nodes[node as usize / WORD_BITS] |= 1 << (node as usize % WORD_BITS);
        // SAFETY: the range is this mapping (invariant 1). The mask has `NODES_MAX` bits, and the
        // kernel reads one bit less than it is given.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len,
                MPOL_BIND,
                nodes.as_ptr(),
                NODES_MAX + 1,
                0,
            )
        };
        check(answer as libc::c_int)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_here() {
            unmap(self.start, self.len);
        }
    }
}

/// Makes every page that `start..start + len` touches present, in one kernel call.
///
/// Returns false if the kernel refuses, as before Linux 5.14.
pub(super) fn populate(start: NonNull<u8>, len: usize) -> bool {
    let page_bytes = system_page_bytes();
    let before = start.addr().get() % page_bytes;
    // SAFETY: populating changes no byte: neither those of the range, nor those of a neighbour in
    // its first or last page.
    let answer = unsafe {
        libc::madvise(
            start.as_ptr().wrapping_sub(before).cast(),
            (len + before).next_multiple_of(page_bytes),
            MADV_POPULATE_WRITE,
        )
    };
    check(answer).is_ok()
}

/// Returns the size of an ordinary page in bytes.
pub(crate) fn system_page_bytes() -> usize {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn map(len: usize, flags: libc::c_int) -> io::Result<Mapping> {
    // SAFETY: a new private anonymous mapping, at an address of the kernel's choice, touches no
    // memory that exists.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start =
        NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
    Ok(Mapping { start, len, page_bytes: system_page_bytes(), owner: None })
}

fn unmap(start: NonNull<u8>, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the callers pass parts of a mapping that its owner gives up, each part once.
    let answer = unsafe { libc::munmap(start.as_ptr().cast(), len) };
    debug_assert_eq!(answer, 0, "munmap: {}", io::Error::last_os_error());
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn no_huge_pages(bytes: usize, page_bytes: usize) -> BuildError {
    let pages = bytes.div_ceil(page_bytes);
    let remedy = if page_bytes == 2 * MIB {
        format!("sysctl vm.nr_hugepages={pages}")
    } else {
        format!(
            "echo {pages} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
            page_bytes / 1024
        )
    };
    BuildError::HugePagesUnavailable { bytes, page_bytes, remedy }
}

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

/// The process that a value was made in.
///
/// A forked child has a copy of the value. What the kernel keeps for the parent, such as a ring, is
/// not the child's, although the child has its descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    /// A word that is zero in every other process.
    mark: &'static AtomicU32,
    #[cfg_attr(not(feature = "io-uring"), allow(dead_code, reason = "for the texts of errors"))]
    id: u32,
}

/// The mark of this process; in a forked child that of its parent, until the child needs one.
#[cfg(not(uring_arena_loom))]
static MARK: LatestMark = LatestMark(AtomicPtr::new(std::ptr::null_mut()));

impl Process {
    /// Returns this process.
    pub(crate) fn current() -> Process {
        #[cfg(not(uring_arena_loom))]
        let mark = MARK.get(make_mark);
        #[cfg(uring_arena_loom)]
        let mark = make_mark();
        Process { mark, id: mark.load(Ordering::Relaxed) }
    }

    /// Returns whether this process is the one that the value was made in: one comparison.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        // Relaxed: in one process the word never changes. The fork changes it, before the child
        // runs.
        self.mark.load(Ordering::Relaxed) != 0
    }

    /// Returns the numbers of the process and of this one, if they are two.
    #[cfg(feature = "io-uring")]
    pub(crate) fn other(self) -> Option<(u32, u32)> {
        if self.is_current() { None } else { Some((self.id, std::process::id())) }
    }
}

/// Makes the mark of this process: its number, in a page that the kernel wipes in forked children.
///
/// Without memory, or on a kernel before 4.14, the mark tells no processes apart.
fn make_mark() -> &'static AtomicU32 {
    let mark = Box::leak(Box::new(AtomicU32::new(std::process::id())));
    #[cfg(not(uring_arena_loom))]
    if let Ok(page) = map(system_page_bytes(), 0)
        && page.madvise(libc::MADV_WIPEONFORK).is_ok()
    {
        let page = std::mem::ManuallyDrop::new(page);
        // SAFETY: a page of our own, aligned, never unmapped, and zero, which is a value.
        let wiped: &'static AtomicU32 = unsafe { page.start.cast().as_ref() };
        wiped.store(mark.load(Ordering::Relaxed), Ordering::Relaxed);
        return wiped;
    }
    mark
}

/// The place of the mark that was made last.
// Invariant: null, or a reference that lasts for ever.
struct LatestMark(AtomicPtr<AtomicU32>);

impl LatestMark {
    /// Returns the mark of this process, which `make` makes if there is none yet.
    fn get(&self, make: impl FnOnce() -> &'static AtomicU32) -> &'static AtomicU32 {
        // Acquire: pairs with the Release below, so the mark is seen as it was made.
        let known = self.0.load(Ordering::Acquire);
        // SAFETY: lasts for ever (invariant).
        if let Some(mark) = unsafe { known.as_ref() }
            && mark.load(Ordering::Relaxed) != 0
        {
            return mark;
        }
        let new = make();
        let pointer = std::ptr::from_ref(new).cast_mut();
        match self.0.compare_exchange(known, pointer, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            // Of another thread of this process, because the mark changes once in a process.
            // SAFETY: lasts for ever (invariant).
            Err(theirs) => unsafe { &*theirs },
        }
    }
}

#[cfg(all(test, uring_arena_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn mark(id: u32) -> &'static AtomicU32 {
        Box::leak(Box::new(AtomicU32::new(id)))
    }

    #[test]
    fn two_threads_of_a_child_make_one_mark() {
        for parent in [None, Some(0)] {
            loom::model(move || {
                let parent = parent
                    .map_or(std::ptr::null_mut(), |id| std::ptr::from_ref(mark(id)).cast_mut());
                let latest = Arc::new(LatestMark(AtomicPtr::new(parent)));
                let other = {
                    let latest = Arc::clone(&latest);
                    thread::spawn(move || {
                        let found = latest.get(|| mark(1));
                        (std::ptr::from_ref(found).addr(), found.load(Ordering::Relaxed))
                    })
                };
                let found = latest.get(|| mark(2));
                let found = (std::ptr::from_ref(found).addr(), found.load(Ordering::Relaxed));
                assert_ne!(found.1, 0);
                assert_eq!(found, other.join().unwrap());
            });
        }
    }
}
