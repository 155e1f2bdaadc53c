//! A handle: it keeps an arena open. And the end of an arena when no handle is left.
//!
//! The end of an arena needs no count of leases: its words drain.
//!
//! | state   | entered when                                    | left when                        |
//! |---------|-------------------------------------------------|----------------------------------|
//! | open    | the arena is built                              | the last handle is dropped       |
//! | closed  | the last handle closes every word               | every word holds no claim        |
//! | drained | `pending` reaches zero; the core is freed there | –                                |
//!
//! A lease holds no count of the arena. The last handle closes every word of the allocator and
//! counts the words that hold no claim: `pending` falls by those, and by one for the closing
//! itself. A free learns from its own read-modify-write that its word is closed and now empty, and
//! counts that word, once. The subtraction that brings `pending` to zero frees the arena. An
//! ordinary free touches nothing but its word, and nothing after it.
//!
//! # Safety
//!
//! Unsafe here: using the core through its pointer until the step that may end it. A handle counts
//! in `Counters::handles`, so the core is live while the handle exists.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

use super::core::{Core, CoreOptions};
use super::header::ZERO;
#[cfg(all(feature = "async-alloc", not(uring_arena_loom)))]
use super::registry;
use crate::region::BuildError;
use crate::region::Region;
use crate::sync::Ordering;

/// A reference to an arena that keeps neither the arena open nor its memory.
#[cfg(feature = "async-alloc")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeakHandle {
    core: NonNull<Core>,
    /// The address of the first byte of the region.
    start: usize,
}

#[cfg(feature = "async-alloc")]
// SAFETY: an address; the core behind it is reached only while the registry says that it is live,
// and a `Core` is Send + Sync (pinned below).
unsafe impl Send for WeakHandle {}
#[cfg(feature = "async-alloc")]
// SAFETY: as above.
unsafe impl Sync for WeakHandle {}

#[cfg(feature = "async-alloc")]
impl WeakHandle {
    /// Returns `true` while the arena has memory.
    pub(crate) fn is_live(self) -> bool {
        self.ask_core(|_| Some(())).is_some()
    }

    /// Opens a further handle of the arena. Returns `None` if the last handle is gone.
    pub(crate) fn upgrade(self) -> Option<Handle> {
        // SAFETY: the registry keeps the core live during the call.
        self.ask_core(|core| unsafe { Handle::upgrade(core) })
    }

    #[cfg(not(uring_arena_loom))]
    fn ask_core<T>(self, ask: impl FnOnce(NonNull<Core>) -> Option<T>) -> Option<T> {
        registry::ask_arena_at(self.start, |core| {
            let core = core.cast();
            if core == self.core { ask(core) } else { None }
        })
    }

    /// Models have no registry.
    #[cfg(uring_arena_loom)]
    fn ask_core<T>(self, _: impl FnOnce(NonNull<Core>) -> Option<T>) -> Option<T> {
        None
    }
}

/// A handle of an arena. Claims can be made while one exists.
// Invariant: counted in the core's `handles`.
pub(crate) struct Handle {
    pub(super) core: NonNull<Core>,
}

// SAFETY: a `Core` is Send + Sync (its region and allocator are, the rest are atomics; pinned
// below). The last handle may close it on any thread: the count orders what other threads did
// before (`free::drop_handle`).
unsafe impl Send for Handle {}
// SAFETY: a shared handle gives a shared core.
unsafe impl Sync for Handle {}

// Handles share only what is whole after a panic: atomics, and a queue whose lock is never held
// while foreign code runs.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

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

    /// Returns `true` if a free zeroes what was written.
    pub(crate) fn scrubs(&self) -> bool {
        self.flags & ZERO != 0
    }

    /// Returns a reference that does not keep the arena open.
    #[cfg(feature = "async-alloc")]
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle { core: self.core, start: self.region.start().addr().get() }
    }

    /// Calls the callback of the arena's wake policy after every free from now on.
    #[cfg(feature = "async-alloc")]
    pub(crate) fn call_on_every_free(&self) {
        self.waiters.call_on_every_free(&self.allocator);
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
        unsafe { drop_handle(self.core) }
    }
}

/// Drops one handle. The last one closes the arena.
///
/// # Safety
///
/// The handle was counted and is not used again.
unsafe fn drop_handle(core: NonNull<Core>) {
    // SAFETY: the handle still counts.
    let handles = unsafe { &core.as_ref().counters.handles };
    // Release: what this handle's user did comes before the closing.
    if handles.fetch_sub(1, Ordering::Release) == 1 {
        // Acquire: pairs with that Release of every other handle. A load, because thread sanitizers
        // do not see fences.
        let _ = handles.load(Ordering::Acquire);
        // SAFETY: this was the last handle, and `Handle::upgrade` never starts from zero: nobody
        // else closes.
        unsafe { close(core) };
    }
}

/// Closes every word of the arena.
///
/// # Safety
///
/// The last handle is gone; called once.
#[cold]
unsafe fn close(core: NonNull<Core>) {
    #[cfg(feature = "holders")]
    report_claims(core);
    // SAFETY: live: `pending` still counts the closing.
    let drained = unsafe { core.as_ref().allocator.close() };
    // SAFETY: the words just counted, and the closing, are ours to count.
    unsafe { count_drained(core, drained + 1) };
}

/// Tells, of an arena that tracks its holders, which claims are out when its last handle is gone.
#[cfg(feature = "holders")]
fn report_claims(core: NonNull<Core>) {
    // Not counted, and so never dropped: the closing that is not done yet keeps the core live.
    let view = std::mem::ManuallyDrop::new(Handle { core });
    if let Some(table) = &view.holders {
        table.tell_of_end(&*view);
    }
}

/// Counts `words` of the allocator as drained. The last of them ends the arena.
///
/// # Safety
///
/// Each word is counted once: by `close` if it held no claim then, else by the free that emptied
/// it.
pub(super) unsafe fn count_drained(core: NonNull<Core>, words: usize) {
    // SAFETY: live: `pending` still counts these words.
    let pending = unsafe { &core.as_ref().counters.pending };
    // AcqRel: the thread that ends the arena sees all that was done before every other word
    // drained.
    if pending.fetch_sub(words, Ordering::AcqRel) == words {
        // SAFETY: no handle, no claim, and only one subtraction reaches zero.
        unsafe { Core::destroy(core) };
    }
}
