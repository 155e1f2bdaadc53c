//! When an arena ends: no count of leases, but words that drain.
//!
//! A lease holds no count of the arena. When the last handle goes, it closes every word of the
//! books and counts the words that hold no claim (`pending` falls by those, and by one for the
//! closing itself). A free learns from its own read-modify-write that its word is closed and now
//! empty: it counts that word, once. Who brings `pending` to zero gives the arena back. An ordinary
//! free touches nothing but its word, and nothing after it.
//!
//! # Safety
//!
//! Unsafe here: using the core through its pointer until the step that may end it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::allocator::Allocator;
use super::core::Core;
use super::handle::Handle;
use super::header::{Header, HeaderLine, LINE, ZERO, back_of};
use crate::slots::{self, FreeOutcome, free_block, free_slot};
use crate::sync::Ordering;

/// Gives up one handle; the last one closes the arena.
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
        // SAFETY: this was the last handle, and `upgrade` never starts from zero: nobody else
        // closes.
        unsafe { close(core) };
    }
}

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

/// Counts `words` of the books as drained, and ends the arena with the last of them.
///
/// # Safety
///
/// Each word is counted once: by `close` if it held no claim then, else by the free that emptied
/// it.
unsafe fn count_drained(core: NonNull<Core>, words: usize) {
    // SAFETY: live: `pending` still counts these words.
    let pending = unsafe { &core.as_ref().counters.pending };
    // AcqRel: who ends the arena sees all that was done before every other word drained.
    if pending.fetch_sub(words, Ordering::AcqRel) == words {
        // SAFETY: no handle, no claim, and only one subtraction reaches zero.
        unsafe { Core::destroy(core) };
    }
}

/// Frees the slot of `header` if there is nothing else to do. False, and nothing was freed,
/// otherwise: for a block, a slot that must be scrubbed, an arena whose handles are gone, or
/// somebody who waits.
///
/// # Safety
///
/// The caller owns the claim, alone, and does not use it again if it was freed.
#[inline]
pub(super) unsafe fn free_plainly(header: NonNull<Header>) -> bool {
    // SAFETY: live while the claim lasts, and all atomics.
    let home = unsafe { header.as_ref() }.home();
    if home & (LINE | ZERO) != LINE {
        return false;
    }
    // SAFETY: the flag says that this header begins a line, which lives as long.
    let (word, step) = unsafe { header.cast::<HeaderLine>().as_ref() }.place();
    // SAFETY: the first claim wrote the address of a word of the books, which live while the claim
    // lasts.
    slots::free_plainly(unsafe { &*word }, step)
}

/// Frees the slot or block of `header`.
///
/// # Safety
///
/// The caller owns the claim, alone, and does not use it again.
pub(super) unsafe fn free(header: NonNull<Header>) {
    // SAFETY: live while the claim lasts, and all atomics.
    let home = unsafe { header.as_ref() }.home();
    // SAFETY: the first claim wrote the distance from the core of this allocation to this header.
    let core = unsafe { header.byte_sub(back_of(home)) }.cast::<Core>();
    let freed = if home & LINE != 0 {
        // SAFETY: the flag says that this header begins a line, which lives as long.
        let (word, step) = unsafe { header.cast::<HeaderLine>().as_ref() }.place();
        // SAFETY: the first claim wrote the address of a word of the books, which live while the
        // claim lasts.
        free_slot(unsafe { &*word }, step)
    } else {
        // SAFETY: the caller's promise.
        unsafe { free_block_of(core, header) }
    };
    if freed != FreeOutcome::Done {
        // SAFETY: `freed` is what came of the caller's claim.
        unsafe { free_slowly(core, back_of(home), freed) }
    }
}

/// Frees a block.
///
/// # Safety
///
/// As for [`free`]; `header` is that of the block, in the arena of `core`.
unsafe fn free_block_of(core: NonNull<Core>, header: NonNull<Header>) -> FreeOutcome {
    // SAFETY: live while the claim lasts, and all atomics.
    let header = unsafe { header.as_ref() };
    let (back, order) = (header.back(), header.order());
    // SAFETY: the claim keeps the core live until the word is written.
    let core = unsafe { core.as_ref() };
    let (word, step) = core.allocator.blocks().prepare_free(core.index_at(back), order.into());
    free_block(word, step)
}

/// What only some frees do.
///
/// # Safety
///
/// The caller freed the claim whose header lies `back` behind `core`, with this outcome.
#[cold]
unsafe fn free_slowly(core: NonNull<Core>, back: usize, freed: FreeOutcome) {
    match freed {
        FreeOutcome::Done => {}
        // SAFETY: the free emptied the word; `pending` counted it until now.
        FreeOutcome::ArenaDrained => unsafe { count_drained(core, 1) },
        FreeOutcome::HasWaiters => {
            // SAFETY: nothing was freed: the claim keeps the core live.
            let index = unsafe { core.as_ref() }.index_at(back);
            // SAFETY: nothing was freed, so the claim is still the caller's.
            unsafe { free_and_wake(core, index) }
        }
    }
}

/// The order of the block that starts at `index`.
///
/// # Safety
///
/// `core` is live, and the caller owns the claim of `index`.
#[inline]
unsafe fn order_of(core: NonNull<Core>, index: u32) -> u32 {
    // SAFETY: live, and a claimed block has a header.
    let header = unsafe { Core::header_at(core, index) };
    // SAFETY: headers live as long as the core, and are all atomics.
    unsafe { header.as_ref() }.order().into()
}

/// The slow road: somebody waits, or did.
///
/// The arena must outlive the wake, so it is held open first; if the last handle is gone already
/// nobody can be waiting, and the free is an ordinary one.
///
/// # Safety
///
/// As for [`free`].
#[cold]
unsafe fn free_and_wake(core: NonNull<Core>, index: u32) {
    // SAFETY: our claim keeps the core live.
    let allocator = unsafe { &core.as_ref().allocator };
    let order = match allocator {
        Allocator::Slots(_) => 0,
        // SAFETY: as above, and the claim is ours.
        Allocator::Blocks(_) => unsafe { order_of(core, index) },
    };
    // SAFETY: our claim keeps the core live.
    let handle = unsafe { Handle::upgrade(core) };
    if let Some(handle) = handle {
        // What is kept for a waiter is nobody's frozen bytes.
        // SAFETY: our claim keeps the core live, and the slot has a header.
        let header = unsafe { Core::header_at(core, index) };
        // SAFETY: headers live as long as the core, and this one is the claim's.
        unsafe { header.as_ref() }.note_thaw();
        handle.come_back(index, order);
    } else if allocator.free_despite_waiters(index, order) == FreeOutcome::ArenaDrained {
        // SAFETY: our free emptied the word; `pending` counted it until now.
        unsafe { count_drained(core, 1) };
    }
}
