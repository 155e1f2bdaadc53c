//! From a completion of a receive to bytes.
//!
//! # Safety
//!
//! Unsafe here: making bytes of what the kernel says it wrote.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use bytes::Bytes;
use io_uring::cqueue;

use super::{BufferRing, FromSlot, Status};
use crate::buffer::ArenaBytes;
use crate::lease::ZERO;

/// Where the next bytes of a completion lie: a number, so that a caller can keep it beside the
/// ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    position: u32,
    remaining: u32,
    /// The last slot stays in the ring: the kernel goes on behind these bytes (incremental
    /// consumption).
    keeps_last: bool,
}

impl Cursor {
    const NOTHING: Cursor = Cursor { position: 0, remaining: 0, keeps_last: false };

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.remaining == 0
    }
}

/// Bytes of one completion in one slot.
struct Part {
    position: u32,
    start: NonNull<u8>,
    len: u32,
    /// The kernel goes on behind them in the same slot.
    stays: bool,
}

impl BufferRing {
    /// Interprets a completion of a receive of this ring: the bytes that came, and what became of
    /// the receive.
    ///
    /// What is not taken out of the result goes back to the kernel when it is dropped.
    ///
    /// # Safety
    ///
    /// `completion` is of a receive that names this ring's group, on the ring where it is
    /// registered, and is handed in once.
    #[inline]
    pub unsafe fn complete(&mut self, completion: &cqueue::Entry) -> Received<'_> {
        let (result, flags) = (completion.result(), completion.flags());
        // SAFETY: the caller's promise.
        let (cursor, status) = unsafe { self.begin(result, flags) };
        Received { ring: self, cursor, status }
    }

    /// The bytes of a completion in the common case, which is kept short: they lie in the slot that
    /// was posted first, and nothing is to be copied. `None`, and nothing done, in any other:
    /// [`begin`](Self::begin) has them all.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete); the receive goes on, and every cursor was taken to its
    /// end.
    #[inline]
    pub(crate) unsafe fn take_plain<B: FromSlot>(&mut self, result: i32, flags: u32) -> Option<B> {
        if !self.plain.contain(result) {
            return None;
        }
        let (lease, start) = self.shadow.take_first(cqueue::buffer_select(flags)?)?;
        let len = result as usize;
        debug_assert!(!lease.header().has(ZERO), "what was written is not noted");
        self.metrics.received += 1;
        // SAFETY: the completion says that the kernel has written these bytes, and that it is done
        // with the slot: it is not shared, and they fit.
        Some(B::in_slot(unsafe { ArenaBytes::from_lease(lease, start, len) }))
    }

    /// As [`complete`](Self::complete), for a caller that keeps the cursor.
    ///
    /// # Safety
    ///
    /// As for `complete`. Each cursor is taken to its end before the next is begun.
    #[inline]
    pub(crate) unsafe fn begin(&mut self, result: i32, flags: u32) -> (Cursor, Status) {
        let status = Status::of(result, flags);
        if result > 0
            && let Some(id) = cqueue::buffer_select(flags)
            && let Some(position) = self.shadow.find(id)
        {
            let keeps_last = self.incremental && cqueue::buffer_more(flags);
            return (Cursor { position, remaining: result as u32, keeps_last }, status);
        }
        self.begin_without_bytes(result, flags, status);
        (Cursor::NOTHING, status)
    }

    #[cold]
    fn begin_without_bytes(&mut self, result: i32, flags: u32, status: Status) {
        if status == Status::Starved {
            self.metrics.starved += 1;
        }
        let Some(id) = cqueue::buffer_select(flags) else {
            // Bytes that went nowhere: not a completion of ours.
            self.metrics.unmatched_completions += u64::from(result > 0);
            return;
        };
        let Some(position) = self.shadow.find(id) else {
            self.metrics.unmatched_completions += 1;
            return;
        };
        if self.incremental && cqueue::buffer_more(flags) {
            return;
        }
        if let Some(lease) = self.shadow.take(position) {
            // A receive that failed on the way may have written any of it.
            lease.record_written(self.slot_bytes as usize);
            self.recycle(lease);
        }
    }

    /// The next bytes of a completion: from one slot, or a copy of them if they are few.
    #[inline]
    pub(crate) fn take<B: FromSlot>(&mut self, cursor: &mut Cursor) -> Option<B> {
        let part = self.next_part(cursor)?;
        if (part.len as usize) < self.copy_below {
            return Some(self.copy_out(part));
        }
        self.hand_out(part).map(B::in_slot)
    }

    /// The next bytes of a completion, in their slot however few they are.
    pub(crate) fn take_in_slot(&mut self, cursor: &mut Cursor) -> Option<ArenaBytes> {
        let part = self.next_part(cursor)?;
        self.hand_out(part)
    }

    #[inline]
    fn next_part(&mut self, cursor: &mut Cursor) -> Option<Part> {
        if cursor.remaining == 0 {
            return None;
        }
        let Some((lease, start, used)) = self.shadow.peek(cursor.position) else {
            return self.refuse_rest(cursor);
        };
        let position = cursor.position;
        let len = cursor.remaining.min(self.slot_bytes - used);
        cursor.remaining -= len;
        cursor.position = position.wrapping_add(1);
        let end = used as usize + len as usize;
        lease.record_written(end);
        // SAFETY: `used + len` is at most the slot.
        let start = unsafe { start.add(used as usize) };
        // A slot that is used up never stays, whatever the kernel says.
        let stays = cursor.keeps_last && cursor.remaining == 0 && end < self.slot_bytes as usize;
        Some(Part { position, start, len, stays })
    }

    #[inline]
    fn hand_out(&mut self, part: Part) -> Option<ArenaBytes> {
        let Part { position, start, len, stays } = part;
        self.metrics.received += 1;
        if stays {
            let (lease, ..) = self.shadow.peek(position)?;
            // SAFETY: the kernel has written these bytes and goes on behind them (`BUF_MORE`); the
            // shadow gives the ring's share up by `dec_ref`, or hands it on as one owner of
            // several.
            let bytes = unsafe { ArenaBytes::clone_ref(lease, start, len as usize) };
            self.shadow.note_used(position, len);
            Some(bytes)
        } else {
            let lease = self.shadow.take(position)?;
            // SAFETY: the completion says that the kernel has written these bytes, and that it is
            // done with the slot.
            Some(unsafe { ArenaBytes::from_lease(lease, start, len as usize) })
        }
    }

    fn copy_out<B: FromSlot>(&mut self, part: Part) -> B {
        let Part { position, start, len, stays } = part;
        // SAFETY: the kernel has written these bytes, and the ring owns the slot's lease until
        // below.
        let bytes = B::copied(unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) });
        self.metrics.copied += 1;
        if stays {
            self.shadow.note_used(position, len);
        } else if let Some(lease) = self.shadow.take(position) {
            self.recycle(lease);
        }
        bytes
    }

    /// More bytes than were posted: what cannot be is not handed out.
    #[cold]
    fn refuse_rest<B>(&mut self, cursor: &mut Cursor) -> Option<B> {
        self.metrics.unmatched_completions += 1;
        cursor.remaining = 0;
        None
    }

    /// Gives the slots of bytes that nobody took back to the kernel.
    fn recycle_rest(&mut self, cursor: &mut Cursor) {
        while let Some(bytes) = self.take_in_slot(cursor) {
            drop(bytes);
        }
    }
}

/// What one completion of a receive brought: an iterator over its bytes, one item a slot.
///
/// Most completions bring one item; a bundle brings several. [`bytes`](Self::bytes) gives the same
/// as [`Bytes`].
#[derive(Debug)]
#[must_use = "bytes that are not taken are dropped"]
pub struct Received<'ring> {
    pub(super) ring: &'ring mut BufferRing,
    pub(super) cursor: Cursor,
    status: Status,
}

impl Received<'_> {
    /// What became of the receive.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Bytes that are still to be taken.
    pub fn remaining(&self) -> usize {
        self.cursor.remaining as usize
    }

    /// The same as an iterator over [`Bytes`].
    pub fn bytes(&mut self) -> impl Iterator<Item = Bytes> {
        std::iter::from_fn(|| self.ring.take(&mut self.cursor))
    }
}

impl Iterator for Received<'_> {
    type Item = ArenaBytes;

    #[inline]
    fn next(&mut self) -> Option<ArenaBytes> {
        self.ring.take(&mut self.cursor)
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.cursor.is_done() {
            self.ring.recycle_rest(&mut self.cursor);
        }
    }
}
