//! The end of an arena: no count of leases, but words that drain.
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
//! Unsafe here: using the core through its pointer until the step that may end it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::core::Core;
use crate::sync::Ordering;

/// Drops one handle. The last one closes the arena.
///
/// # Safety
///
/// The handle was counted and is not used again.
pub(super) unsafe fn drop_handle(core: NonNull<Core>) {
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
    // SAFETY: live: `pending` still counts the closing.
    let drained = unsafe { core.as_ref().allocator.close() };
    // SAFETY: the words just counted, and the closing, are ours to count.
    unsafe { count_drained(core, drained + 1) };
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
