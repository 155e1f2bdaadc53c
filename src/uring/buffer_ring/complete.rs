//! From a completion of a receive to bytes.
//!
//! # Safety
//!
//! Unsafe here: making bytes of the memory that the kernel says it wrote.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use io_uring::cqueue;

use super::received::Datagram;
use super::received::{FromSlot, Received, Status};
use super::ring::BufferRing;
use crate::buffer::ArenaBytes;
use crate::lease::ZERO;

/// The bytes of a completion that are still to be taken out: plain numbers, so that a caller can
/// keep them beside the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remaining {
    /// The position of the next slot.
    position: u32,
    bytes: u32,
    /// True if the last slot stays in the ring: the kernel goes on behind these bytes (incremental
    /// consumption, `F_BUF_MORE`).
    buf_more: bool,
}

impl Remaining {
    const NOTHING: Remaining = Remaining { position: 0, bytes: 0, buf_more: false };

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// The bytes of one completion in one slot.
struct Part {
    position: u32,
    start: NonNull<u8>,
    len: u32,
    /// True if the kernel goes on behind these bytes in the same slot.
    buf_more: bool,
}

impl BufferRing {
    /// Interprets a completion of a receive of this ring: the bytes that came, and the status of
    /// the receive.
    ///
    /// `B` is [`Bytes`](bytes::Bytes) or [`ArenaBytes`]. The examples of [`BufferRing`] and
    /// [`Received`] show it.
    ///
    /// # Safety
    ///
    /// `completion` is of a receive that names this ring's group, on the ring where it is
    /// registered, and is handed in once.
    #[inline]
    pub unsafe fn complete<B: FromSlot>(&mut self, completion: &cqueue::Entry) -> Received<B> {
        let (result, flags) = (completion.result(), completion.flags());
        if cqueue::more(flags) {
            // SAFETY: the caller's promise; the receive goes on, and every completion is taken to
            // its end before the next (below).
            if let Some(bytes) = unsafe { self.take_fast(result, flags) } {
                return Received::new(Some(bytes), Vec::new(), Status::Armed);
            }
        }
        // SAFETY: the caller's promise.
        let (remaining, status) = unsafe { self.begin_completion(result, flags) };
        self.take_all(remaining, status, BufferRing::take)
    }

    /// Interprets a completion of a [`receive_datagrams`](Self::receive_datagrams): the datagram
    /// that came, and the status of the receive.
    ///
    /// The example of [`Datagram`] shows it.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    pub unsafe fn complete_datagram<B: FromSlot>(
        &mut self,
        completion: &cqueue::Entry,
    ) -> Received<Datagram<B>> {
        // SAFETY: the caller's promise.
        let (remaining, status) =
            unsafe { self.begin_completion(completion.result(), completion.flags()) };
        self.take_all(remaining, status, BufferRing::take_datagram)
    }

    fn take_all<T>(
        &mut self,
        mut remaining: Remaining,
        status: Status,
        take: impl Fn(&mut BufferRing, &mut Remaining) -> Option<T>,
    ) -> Received<T> {
        let first = take(self, &mut remaining);
        let mut rest = Vec::new();
        if !remaining.is_empty() {
            rest.reserve(remaining.bytes.div_ceil(self.slot_bytes) as usize);
        }
        while !remaining.is_empty() {
            rest.extend(take(self, &mut remaining));
        }
        Received::new(first, rest, status)
    }

    /// Takes the bytes of a completion out on the fast path: the bytes lie in the slot that was
    /// posted first, and are not copied.
    ///
    /// Returns `None`, and does nothing, in every other case: then
    /// [`begin_completion`](Self::begin_completion) handles the completion.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete). The receive goes on, and the bytes of every completion
    /// before this one were taken to their end.
    #[inline]
    pub(crate) unsafe fn take_fast<B: FromSlot>(&mut self, result: i32, flags: u32) -> Option<B> {
        if !self.fast_path.contains(result) {
            return None;
        }
        let (lease, start) = self.posted.take_first(cqueue::buffer_select(flags)?)?;
        let len = result as usize;
        debug_assert!(!lease.header().has(ZERO), "written bytes are not noted here");
        self.metrics.received += 1;
        // SAFETY: the completion says that the kernel has written these bytes and is done with the
        // slot. The slot is not shared, and the bytes fit.
        Some(B::arrived(unsafe { ArenaBytes::from_lease(lease, start, len) }))
    }

    /// Begins to interpret a completion, for a caller that keeps the remaining bytes.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete). The bytes of each completion are taken to their end
    /// before the next completion begins.
    #[inline]
    pub(crate) unsafe fn begin_completion(
        &mut self,
        result: i32,
        flags: u32,
    ) -> (Remaining, Status) {
        let status = Status::new(result, flags);
        if result > 0
            && let Some(id) = cqueue::buffer_select(flags)
            && let Some(position) = self.posted.find(id)
        {
            let buf_more = self.incremental && cqueue::buffer_more(flags);
            return (Remaining { position, bytes: result as u32, buf_more }, status);
        }
        self.complete_without_bytes(result, flags, status);
        (Remaining::NOTHING, status)
    }

    #[cold]
    fn complete_without_bytes(&mut self, result: i32, flags: u32, status: Status) {
        if status == Status::Starved {
            self.metrics.starved += 1;
        }
        let Some(id) = cqueue::buffer_select(flags) else {
            // Bytes without a buffer are of no receive of this ring.
            self.metrics.unmatched_completions += u64::from(result > 0);
            return;
        };
        let Some(position) = self.posted.find(id) else {
            self.metrics.unmatched_completions += 1;
            return;
        };
        if self.incremental && cqueue::buffer_more(flags) {
            return;
        }
        if let Some(lease) = self.posted.take(position) {
            // A receive that failed on the way may have written any of it.
            lease.record_written(self.slot_bytes as usize);
            self.recycle(lease);
        }
    }

    /// Takes the next bytes of a completion out: those of one slot, or a copy of them if they are
    /// few.
    #[inline]
    pub(crate) fn take<B: FromSlot>(&mut self, remaining: &mut Remaining) -> Option<B> {
        let part = self.next_part(remaining)?;
        if (part.len as usize) < self.copy_below {
            return Some(self.copy_out(part));
        }
        self.metrics.received += 1;
        self.hand_out(part).map(B::in_slot)
    }

    /// Takes the datagram of a completion out.
    pub(crate) fn take_datagram<B: FromSlot>(
        &mut self,
        remaining: &mut Remaining,
    ) -> Option<Datagram<B>> {
        let part = self.next_part(remaining)?;
        let datagrams = self.datagrams;
        let Some((datagram, payload)) =
            self.hand_out(part).and_then(|whole| datagrams.parse(whole))
        else {
            self.metrics.unmatched_completions += 1;
            return None;
        };
        let bytes = if payload.len() < self.copy_below {
            self.metrics.copied += 1;
            B::copied(&payload)
        } else {
            self.metrics.received += 1;
            B::in_slot(payload)
        };
        Some(datagram.map(|()| bytes))
    }

    #[inline]
    fn next_part(&mut self, remaining: &mut Remaining) -> Option<Part> {
        if remaining.is_empty() {
            return None;
        }
        let Some((lease, start, used)) = self.posted.peek(remaining.position) else {
            return self.refuse_rest(remaining);
        };
        let position = remaining.position;
        let len = remaining.bytes.min(self.slot_bytes - used);
        remaining.bytes -= len;
        remaining.position = position.wrapping_add(1);
        let end = used as usize + len as usize;
        // All of it: a receive that failed before it may have written behind these bytes.
        lease.record_written(self.slot_bytes as usize);
        // SAFETY: `used + len` is at most the slot.
        let start = unsafe { start.add(used as usize) };
        // A slot that is used up never stays, whatever the kernel says.
        let buf_more = remaining.buf_more && remaining.is_empty() && end < self.slot_bytes as usize;
        Some(Part { position, start, len, buf_more })
    }

    #[inline]
    fn hand_out(&mut self, part: Part) -> Option<ArenaBytes> {
        let Part { position, start, len, buf_more } = part;
        if buf_more {
            let (lease, ..) = self.posted.peek(position)?;
            // SAFETY: the kernel has written these bytes and goes on behind them (`F_BUF_MORE`).
            // The ring gives its share up by `dec_ref`, or hands it on as one owner of
            // several.
            let bytes = unsafe { ArenaBytes::clone_ref(lease, start, len as usize) };
            self.posted.add_used(position, len);
            Some(bytes)
        } else {
            let lease = self.posted.take(position)?;
            // SAFETY: the completion says that the kernel has written these bytes and is done with
            // the slot.
            Some(unsafe { ArenaBytes::from_lease(lease, start, len as usize) })
        }
    }

    fn copy_out<B: FromSlot>(&mut self, part: Part) -> B {
        let Part { position, start, len, buf_more } = part;
        // SAFETY: the kernel has written these bytes, and the ring owns the slot's lease until
        // below.
        let bytes = B::copied(unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) });
        self.metrics.copied += 1;
        if buf_more {
            self.posted.add_used(position, len);
        } else if let Some(lease) = self.posted.take(position) {
            self.recycle(lease);
        }
        bytes
    }

    /// Refuses bytes beyond those that were posted: they are not handed out.
    #[cold]
    fn refuse_rest<B>(&mut self, remaining: &mut Remaining) -> Option<B> {
        self.metrics.unmatched_completions += 1;
        remaining.bytes = 0;
        None
    }
}
