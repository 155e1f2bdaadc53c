//! From a completion of a receive to bytes.
//!
//! # Safety
//!
//! Unsafe here: making bytes of the memory that the kernel says it wrote.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use io_uring::cqueue;

use super::posted::PostedEntry;
use super::received::Datagram;
use super::received::{FromSlot, Received, Status};
use super::ring::BufferRing;
use crate::buffer::ArenaBytes;
use crate::lease::{CopyCharge, Run, ZERO};

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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

/// The bytes of one completion in one entry.
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
                return Received::new(Some(B::arrived(bytes)), Vec::new(), Status::Armed);
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
        let (remaining, status) =
            // SAFETY: the caller's promise.
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
    pub(crate) unsafe fn take_fast(&mut self, result: i32, flags: u32) -> Option<ArenaBytes> {
        if !self.fast_path.contains(result) {
            return None;
        }
        let (lease, start) = self.posted.take_first(cqueue::buffer_select(flags)?)?;
        let len = result as usize;
        debug_assert!(!lease.header().has(ZERO), "written bytes are not noted here");
        self.metrics.received += 1;
        self.depth.bytes += len as u64;
        // SAFETY: the completion says that the kernel has written these bytes and is done with the
        // slot. The slot is not shared, and the bytes fit.
        let lease = lease.with_receipt_recorded(len, self.connection());
        // SAFETY: as above.
        Some(unsafe { ArenaBytes::from_lease(lease, start, len) })
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
        if let Some(run) = self.posted.take(position) {
            // A receive that failed on the way may have written any of it.
            run.record_written_whole(self.slot_bytes as usize);
            self.recycle(run);
        }
    }

    /// Takes the next bytes of a completion out: those in slots that are side by side, or a copy of
    /// them if they are few.
    #[inline]
    pub(crate) fn take<B: FromSlot>(&mut self, remaining: &mut Remaining) -> Option<B> {
        let part = self.next_part(remaining)?;
        if (part.len as usize) < self.copy_below()
            && let Some(charge) = self.charge(part.len as usize)
        {
            return Some(self.copy_out(part, charge));
        }
        self.metrics.received += 1;
        self.hand_out(part, remaining).map(B::in_slot)
    }

    /// Takes the datagram of a completion out.
    pub(crate) fn take_datagram<B: FromSlot>(
        &mut self,
        remaining: &mut Remaining,
    ) -> Option<Datagram<B>> {
        // A datagram is cut at the end of a slot, whatever lies ready.
        self.forbid_runs();
        let mut part = self.next_part(remaining)?;
        let is_cut = part.len > self.slot_bytes;
        part.len = part.len.min(self.slot_bytes);
        let datagrams = self.datagrams;
        let Some((mut datagram, payload)) =
            self.hand_out(part, remaining).and_then(|whole| datagrams.parse(whole))
        else {
            self.metrics.unmatched_completions += 1;
            return None;
        };
        datagram.is_truncated |= is_cut;
        let charge = match payload.len() < self.copy_below() {
            true => self.charge(payload.len()),
            false => None,
        };
        let bytes = if let Some(charge) = charge {
            self.metrics.copied += 1;
            B::copied(&payload, charge)
        } else {
            self.metrics.received += 1;
            B::in_slot(payload)
        };
        Some(datagram.map(|()| bytes))
    }

    /// Returns the connection whose bytes come, if holders are tracked.
    #[inline]
    fn connection(&self) -> Option<u64> {
        #[cfg(feature = "holders")]
        return self.connection;
        #[cfg(not(feature = "holders"))]
        None
    }

    /// Counts a copy of `bytes` against the arena. Returns `None` if too many live.
    fn charge(&self, bytes: usize) -> Option<CopyCharge> {
        self.arena.copied.charge(bytes, self.pressure.copied_max)
    }

    #[inline]
    fn next_part(&mut self, remaining: &mut Remaining) -> Option<Part> {
        if remaining.is_empty() {
            return None;
        }
        let position = remaining.position;
        let Some(PostedEntry { start, used, slots }) = self.posted.peek(position) else {
            return self.refuse_rest(remaining);
        };
        let entry_bytes = slots * self.slot_bytes;
        let len = remaining.bytes.min(self.filled_at(position, entry_bytes - used));
        remaining.bytes -= len;
        remaining.position = position.wrapping_add(1);
        self.depth.bytes += u64::from(len);
        let end = used + len;
        // All of it: a receive that failed before it may have written behind these bytes.
        self.posted.record_written(position, self.slot_bytes as usize);
        // SAFETY: `used + len` is at most the entry.
        let start = unsafe { start.add(used as usize) };
        // An entry that is used up never stays, whatever the kernel says.
        let buf_more = remaining.buf_more && remaining.is_empty() && end < entry_bytes;
        Some(Part { position, start, len, buf_more })
    }

    /// Returns the bytes that a completion which goes beyond the entry at `position` has there.
    ///
    /// The kernel makes an entry shorter when it begins a bundle that has fewer bytes. If nothing
    /// comes after all, the entry stays so, and the next bundle goes on behind it sooner.
    #[inline]
    fn filled_at(&self, position: u32, most: u32) -> u32 {
        if !self.bundles || self.incremental {
            return most;
        }
        let detached = self.detached.as_ref().map(|detached| &detached.entries);
        match self.entries.as_ref().or(detached) {
            Some(entries) => entries.bytes_at(position).min(most),
            None => most,
        }
    }

    #[inline]
    fn hand_out(&mut self, part: Part, remaining: &mut Remaining) -> Option<ArenaBytes> {
        let Part { position, start, len, buf_more } = part;
        if buf_more {
            let lease = self.posted.lease_at(position)?;
            lease.record_receipt(len as usize, self.connection());
            // SAFETY: the kernel has written these bytes and goes on behind them (`F_BUF_MORE`).
            // The ring gives its share up by `dec_ref`, or hands it on as one owner of
            // several.
            let bytes = unsafe { ArenaBytes::clone_ref(lease, start, len as usize) };
            self.posted.add_used(position, len);
            return Some(bytes);
        }
        let mut len = len;
        let mut run = self.take_slots(position, len)?;
        while len == run.count() * self.slot_bytes && self.continues(&run, start, len, remaining) {
            let Some(next) = self.next_part(remaining) else { break };
            let Some(more) = self.take_slots(next.position, next.len) else { break };
            len += next.len;
            if let Err(other) = run.join(more) {
                unreachable!("slot {} continues the run", other.index());
            }
        }
        run.record_receipt(len as usize, self.connection());
        // SAFETY: the completion says that the kernel has written these bytes and is done with the
        // slots, which lie side by side.
        Some(unsafe { ArenaBytes::from_run(run, start, len as usize) })
    }

    /// Takes the slots of an entry that `len` bytes lie in, and recycles the others.
    #[inline]
    fn take_slots(&mut self, position: u32, len: u32) -> Option<Run> {
        let mut run = self.posted.take(position)?;
        if run.count() > 1 {
            let slots = len.div_ceil(self.slot_bytes).max(1);
            if slots < run.count() {
                let rest = run.split_off(slots);
                self.recycle(rest);
            }
        }
        Some(run)
    }

    /// Returns whether the next bytes of a bundle lie behind these, in the next slots of their
    /// word.
    fn continues(&self, run: &Run, start: NonNull<u8>, len: u32, remaining: &Remaining) -> bool {
        if remaining.is_empty() || self.incremental {
            return false;
        }
        let Some(next) = self.posted.peek(remaining.position) else { return false };
        let end = start.addr().get() + len as usize;
        let slots = run.count() + next.slots;
        let is_behind = next.start.addr().get() == end && next.used == 0;
        is_behind && slots <= self.depth.run_max() && run.has_next_in_word()
    }

    fn copy_out<B: FromSlot>(&mut self, part: Part, charge: CopyCharge) -> B {
        let Part { position, start, len, buf_more } = part;
        // SAFETY: the kernel has written these bytes, and the ring owns their slots until below.
        let written = unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) };
        let bytes = B::copied(written, charge);
        self.metrics.copied += 1;
        if buf_more {
            self.posted.add_used(position, len);
        } else if let Some(run) = self.posted.take(position) {
            self.recycle(run);
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
