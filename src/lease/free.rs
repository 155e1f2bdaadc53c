//! The free of a claim: by one exchange on its word, or with more to do.
//!
//! | function        | frees                                               | called by           |
//! |-----------------|-----------------------------------------------------|---------------------|
//! | `try_free_fast` | a slot of an open arena in which nobody waits       | every drop, inlined |
//! | `free`          | any claim, after its bytes were scrubbed            | the slow path       |
//! | `after_free`    | –; ends the arena, or offers the claim to the queue | `free`              |
//!
//! # Safety
//!
//! Unsafe here: using the core through its pointer until the step that may end it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::batch;
use super::core::Core;
use super::handle::{Handle, count_drained};
use super::header::{Header, HeaderLine, LINE, ZERO, core_offset};
use crate::slots::{Allocator, FreeOutcome};

/// Frees the slot of `header` if there is nothing else to do.
///
/// Returns `false`, and frees nothing, for a block, for a slot that must be scrubbed, if the arena
/// is closed, and if somebody waits.
///
/// # Safety
///
/// The caller owns the claim, alone, and does not use it again if it was freed.
#[inline]
pub(super) unsafe fn try_free_fast(header: NonNull<Header>) -> bool {
    // SAFETY: live while the claim lasts, and all atomics.
    let offset_and_flags = unsafe { header.as_ref() }.core_offset_and_flags();
    if offset_and_flags & (LINE | ZERO) != LINE {
        return false;
    }
    // SAFETY: the flag says that this header begins a line, which lives as long.
    let (word, free) = unsafe { header.cast::<HeaderLine>().as_ref() }.prepared_free();
    // SAFETY: the first claim wrote the address of a word of the allocator, which lives while the
    // claim lasts.
    free.try_free_fast(unsafe { &*word })
}

/// Frees the slot or block of `header`.
///
/// # Safety
///
/// The caller owns the claim, alone, and does not use it again.
pub(super) unsafe fn free(header: NonNull<Header>) {
    // SAFETY: live while the claim lasts, and all atomics.
    let offset_and_flags = unsafe { header.as_ref() }.core_offset_and_flags();
    // SAFETY: the first claim wrote the distance from the core of this allocation to this header.
    let core = unsafe { header.byte_sub(core_offset(offset_and_flags)) }.cast::<Core>();
    let freed = if offset_and_flags & LINE != 0 {
        // SAFETY: the caller's promise, and the flag says that this header begins a line.
        if unsafe { was_kept_by_batch(core, header.cast()) } {
            return;
        }
        // SAFETY: the flag says that this header begins a line, which lives as long.
        let (word, free) = unsafe { header.cast::<HeaderLine>().as_ref() }.prepared_free();
        // SAFETY: the first claim wrote the address of a word of the allocator, which lives while
        // the claim lasts.
        free.free(unsafe { &*word })
    } else {
        // SAFETY: live while the claim lasts, and all atomics.
        let (order, cached_order) = unsafe { header.as_ref() }.orders();
        // SAFETY: the claim keeps the core live until the word is written.
        let core = unsafe { core.as_ref() };
        let index = core.index_at(core_offset(offset_and_flags));
        let (word, free) = core.allocator.blocks().prepare_free(index, order, cached_order);
        free.free(word)
    };
    if freed != FreeOutcome::Done {
        // SAFETY: `freed` is the outcome for the caller's claim.
        unsafe { after_free(core, header, freed) }
    }
}

/// Frees the slot of a header line in its batch. Returns `false` if it is in none, or in one that
/// has ended: then the line names the word of the slot again.
///
/// # Safety
///
/// The caller owns the claim, alone, in the arena of `core`, and does not use it again if it was
/// freed.
#[inline]
unsafe fn was_kept_by_batch(core: NonNull<Core>, line: NonNull<HeaderLine>) -> bool {
    // SAFETY: live while the claim lasts, and all atomics.
    let shared_line = unsafe { line.as_ref() };
    let (gate, free) = shared_line.prepared_free();
    let Some(number) = free.number_in_batch() else { return false };
    let batch = NonNull::new(gate.cast_mut().cast()).expect("set with the number");
    // SAFETY: the line names the batch and the slot's number in it; the caller's promise.
    if unsafe { batch::free(batch, number) } {
        return true;
    }
    // SAFETY: our claim keeps the core live.
    let core = unsafe { core.as_ref() };
    let slot = core.index_at(shared_line.header.core_offset());
    let (word, free) = core.allocator.slots().prepare_free(slot);
    shared_line.set_free(word, free);
    false
}

/// Does what follows some frees.
///
/// # Safety
///
/// The caller freed the claim of `header`, in the arena of `core`, with this outcome.
#[cold]
unsafe fn after_free(core: NonNull<Core>, header: NonNull<Header>, freed: FreeOutcome) {
    match freed {
        FreeOutcome::Done => {}
        // SAFETY: the free emptied the word; `pending` counted it until now.
        FreeOutcome::ArenaDrained => unsafe { count_drained(core, 1) },
        // SAFETY: nothing was freed, so the claim is still the caller's.
        FreeOutcome::HasWaiters => unsafe { release_to_waiters(core, header) },
    }
}

/// Releases a claim to the waiters, or frees it if none is left.
///
/// The arena must outlive the wake, so a handle is opened first. If the last handle is gone nobody
/// can be waiting, and the free is an ordinary one.
///
/// # Safety
///
/// As for [`free`]; `header` is in the arena of `core`.
#[cold]
unsafe fn release_to_waiters(core: NonNull<Core>, header: NonNull<Header>) {
    // SAFETY: live while the claim lasts, and all atomics.
    let order: u32 = unsafe { header.as_ref() }.order().into();
    // SAFETY: as above.
    let offset = unsafe { header.as_ref() }.core_offset();
    // SAFETY: our claim keeps the core live.
    let index = unsafe { core.as_ref() }.index_at(offset);
    // SAFETY: our claim keeps the core live.
    if let Some(handle) = unsafe { Handle::upgrade(core) } {
        // Nobody has frozen, and nobody holds, a slot that is on its way to a waiter.
        // SAFETY: live while the claim lasts, and all atomics.
        unsafe { header.as_ref() }.set_order(order as u8);
        let record_order = |first, order| handle.record_order(first, order);
        handle.waiters.release(&handle.allocator, index, order, &record_order);
        return;
    }
    // The free may end the core: from here on no reference to it is held but that to the word.
    // SAFETY: our claim keeps the core live until it is freed.
    let freed = match &unsafe { core.as_ref() }.allocator {
        Allocator::Slots(bitmap) => {
            let (word, free) = bitmap.prepare_free(index);
            free.free_ignoring_waiters(word)
        }
        Allocator::Blocks(buddy) => {
            let (word, free) = buddy.prepare_free(index, order, order);
            free.free_ignoring_waiters(word)
        }
    };
    if freed == FreeOutcome::ArenaDrained {
        // SAFETY: our free emptied the word; `pending` counted it until now.
        unsafe { count_drained(core, 1) };
    }
}
