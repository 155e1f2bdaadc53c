//! A handle: it keeps an arena open.
//!
//! # Safety
//!
//! Unsafe here: reaching the core through its pointer. A handle counts in `Counters::handles`, so
//! the core is live while the handle exists.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::ptr::NonNull;

use super::core::{Core, CoreOptions};
use super::header::ZERO;
use super::lifetime;
#[cfg(all(feature = "async-alloc", not(uring_arena_loom)))]
use super::registry;
use crate::region::BuildError;
use crate::region::Region;
use crate::sync::Ordering;

/// A handle of an arena. Claims can be made while one exists.
// Invariant: counted in the core's `handles`.
pub(crate) struct Handle {
    pub(super) core: NonNull<Core>,
}

// SAFETY: a `Core` is Send + Sync (its region and allocator are, the rest are atomics; pinned
// below). The last handle may close it on any thread: the count orders what other threads did
// before (`lifetime::drop_handle`).
unsafe impl Send for Handle {}
// SAFETY: a shared handle gives a shared core.
unsafe impl Sync for Handle {}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Core>();
};

impl Handle {
    /// Builds an arena and returns its first handle.
    pub(crate) fn new(
        options: CoreOptions,
        region: impl FnOnce() -> Result<Region, BuildError>,
    ) -> Result<Handle, BuildError> {
        Core::create(options, region).map(|core| Handle { core })
    }

    /// Opens a further handle of an arena that a claim keeps live. Returns `None` if the last
    /// handle is gone.
    ///
    /// # Safety
    ///
    /// `core` is live during the call.
    pub(super) unsafe fn upgrade(core: NonNull<Core>) -> Option<Handle> {
        // SAFETY: live (the caller's promise).
        let handles = unsafe { &core.as_ref().counters.handles };
        let mut seen = handles.load(Ordering::Relaxed);
        while seen > 0 {
            // Relaxed: the count alone decides; what the core holds is seen through the claim.
            match handles.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Handle { core }),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Opens a further handle of the arena whose region begins at `start`. Returns `None` if there
    /// is none any more.
    #[cfg(all(feature = "async-alloc", not(uring_arena_loom)))]
    pub(crate) fn open_at(start: usize) -> Option<Handle> {
        // SAFETY: the table names cores that exist, and the core is live during the call.
        registry::with_core(start, |core| unsafe { Handle::upgrade(core.cast()) })
    }

    /// Returns `true` if a free zeroes what was written.
    pub(crate) fn scrubs(&self) -> bool {
        self.flags & ZERO != 0
    }

    /// Returns `true` if both are handles of one arena.
    pub(crate) fn is_same(&self, other: &Handle) -> bool {
        self.core == other.core
    }
}

impl Deref for Handle {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: a handle keeps the core live (invariant).
        unsafe { self.core.as_ref() }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        // Relaxed: the handle that is cloned keeps the arena open meanwhile.
        let before = self.counters.handles.fetch_add(1, Ordering::Relaxed);
        if before > isize::MAX as usize {
            std::process::abort();
        }
        Handle { core: self.core }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this handle was counted, and is not used again.
        unsafe { lifetime::drop_handle(self.core) }
    }
}
