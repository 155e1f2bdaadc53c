//! An anonymous mapping: page-aligned, zero, with the advice that the builder asked for.
//!
//! # Safety
//!
//! Unsafe here: calls of the C library. A `Mapping` owns its pages: nothing else maps over or
//! unmaps them, and dropping it is the only way they go.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

use super::building::{
    Backing, BuildError, InChildren, RegionOptions, real_page_bytes, system_page_bytes,
};
use super::process::Process;

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
            _ => alignment.max(page_bytes),
        };
        let len = bytes.checked_next_multiple_of(page_bytes).ok_or(BuildError::SizeOverflow)?;
        // Room to move the start up to the alignment; `cut` unmaps the rest.
        let slack = if alignment > huge_bytes.max(real_page_bytes()) { alignment } else { 0 };
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
