//! The process that a mapping, or anything else that forked children do not share, belongs to.
//!
//! # Safety
//!
//! Unsafe here: calls of the C library; reaching the mark of a process, which is never freed; and,
//! where the kernel wipes no pages, having forked children reach it.
#![allow(unsafe_code)]

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// The process that a value was made in.
///
/// A forked child has a copy of the value. What the kernel keeps for the parent, such as a ring, is
/// not the child's, although the child has its descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    /// A word that is zero in every other process.
    mark: &'static AtomicU32,
    #[cfg_attr(
        not(any(feature = "io-uring", feature = "tokio")),
        allow(dead_code, reason = "for the texts of errors")
    )]
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
    #[cfg(any(feature = "io-uring", feature = "tokio"))]
    pub(crate) fn other(self) -> Option<(u32, u32)> {
        if self.is_current() { None } else { Some((self.id, std::process::id())) }
    }
}

/// Makes the mark of this process: its number, in a word that is zero in forked children.
///
/// Without memory, or on a Linux before 4.14, the mark tells no processes apart.
fn make_mark() -> &'static AtomicU32 {
    let mark: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(std::process::id())));
    #[cfg(all(target_os = "linux", not(uring_arena_loom)))]
    if let Some(wiped) = word_wiped_by_forks() {
        wiped.store(mark.load(Ordering::Relaxed), Ordering::Relaxed);
        return wiped;
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    wipe_in_children();
    mark
}

/// Maps a word that is zero, and that the kernel zeroes in forked children (Linux 4.14). It is
/// never unmapped.
#[cfg(all(target_os = "linux", not(uring_arena_loom)))]
fn word_wiped_by_forks() -> Option<&'static AtomicU32> {
    let bytes = super::building::system_page_bytes();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new private anonymous mapping, at an address of the kernel's choice, touches no
    // memory that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page that was just mapped, which nobody uses yet.
    if unsafe { libc::madvise(page, bytes, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above, and the address goes no further.
        unsafe { libc::munmap(page, bytes) };
        return None;
    }
    // SAFETY: a page of our own, aligned, never unmapped from here on, and zero, which is a value.
    unsafe { page.cast::<AtomicU32>().as_ref() }
}

/// Has each forked child set its copy of the mark to zero, where the kernel does not.
#[cfg(all(unix, not(target_os = "linux")))]
fn wipe_in_children() {
    extern "C" fn wipe() {
        // SAFETY: lasts for ever (invariant of `LatestMark`). A store is all that a child may do.
        if let Some(mark) = unsafe { MARK.0.load(Ordering::Relaxed).as_ref() } {
            mark.store(0, Ordering::Relaxed);
        }
    }

    // SAFETY: the function is the program's for ever, and calls nothing.
    unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
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
