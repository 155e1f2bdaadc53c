//! An operation that the kernel may be working on: it owns its memory until the last completion.
//!
//! # Safety
//!
//! Unsafe here: believing a completion, and taking the memory out exactly once.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;

use io_uring::cqueue;

use crate::buffer::{Buffer, IoMemory, Payload};

/// `IORING_NOTIF_USAGE_ZC_COPIED`: in the result of a notification.
const NOTIFICATION_COPIED: u32 = 1 << 31;

/// What the kernel was asked to do with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Write into the room behind the written bytes.
    Read,
    /// Read the written bytes.
    Write,
    /// Read the written bytes, and say when it is done with them in a completion of its own.
    SendZc {
        /// The notification says whether the bytes were copied.
        tells_usage: bool,
    },
}

/// An operation in flight. It owns its memory; [`complete`](Self::complete) gives that back.
///
/// Made by [`RegisteredArena`](crate::RegisteredArena) together with the entry to push. **Dropping
/// it quarantines its slot**: the kernel may still use the memory, so it is never freed, and
/// counted in the arena's metrics.
///
/// Invariants: `memory` is there until `take`, `into_any` or `drop` takes it. `noted` is `All` only
/// when the kernel is done with it.
#[must_use = "dropping an operation loses its memory for good"]
pub struct Operation<M: IoMemory = Buffer> {
    memory: ManuallyDrop<M>,
    /// For vectored operations only.
    lists: Option<Box<Lists>>,
    index: Option<u16>,
    kind: Kind,
    /// Bytes asked for.
    requested: u32,
    noted: Noted,
}

/// The completions that are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    None,
    /// The result of a zero-copy send whose notification is to come.
    Result(i32),
    /// The notification of a zero-copy send whose result is to come.
    Notification(u32),
    /// All that the kernel sends. A notification there is of zero-copy sends only, and not of each.
    All {
        result: i32,
        notification: Option<u32>,
    },
}

/// What a vectored operation's entry points to besides the memory: the kernel reads it when the
/// operation is issued.
#[allow(dead_code)] // read by the kernel only
pub(super) struct Lists {
    pub(super) ranges: Box<[libc::iovec]>,
    pub(super) message: Option<Box<libc::msghdr>>,
}

// SAFETY: addresses of the operation's own memory, which is Send; this type only keeps them.
unsafe impl Send for Lists {}
// SAFETY: as above.
unsafe impl Sync for Lists {}

/// What a completion made of an operation.
#[derive(Debug)]
pub enum Progress<M: IoMemory = Buffer> {
    /// The kernel is done with the memory.
    #[non_exhaustive]
    Done {
        /// Bytes read, written or sent, or why not.
        result: io::Result<usize>,
        /// The memory; after a read, longer by what was read.
        buffer: M,
        /// Whether the kernel copied the bytes of a zero-copy send after all. `None` for every
        /// other operation, and where the kernel does not say.
        copied: Option<bool>,
    },
    /// A further completion is to come: the notification of a zero-copy send.
    More(Operation<M>),
}

/// What became of an operation: see [`Progress::Done`].
pub(crate) struct Finished<M> {
    pub(crate) result: io::Result<usize>,
    pub(crate) memory: M,
    pub(crate) copied: Option<bool>,
}

/// What an operation begins as.
pub(super) struct Begin<M> {
    pub(super) memory: M,
    pub(super) lists: Option<Box<Lists>>,
    pub(super) index: Option<u16>,
    pub(super) kind: Kind,
    pub(super) requested: u32,
}

impl<M: IoMemory> Operation<M> {
    pub(super) fn new(begin: Begin<M>) -> Operation<M> {
        Operation {
            memory: ManuallyDrop::new(begin.memory),
            lists: begin.lists,
            index: begin.index,
            kind: begin.kind,
            requested: begin.requested,
            noted: Noted::None,
        }
    }

    /// The registered buffer that the operation uses. `None` if it is an ordinary one: the arena is
    /// not registered, or the memory is not of the arena, or spans two entries of the table.
    pub fn buffer_index(&self) -> Option<u16> {
        self.index
    }

    /// Whether the operation is a zero-copy send, which completes twice.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.kind, Kind::SendZc { .. })
    }

    /// Bytes that the operation asked for.
    pub fn requested(&self) -> usize {
        self.requested as usize
    }

    /// Bytes sent, or why not, of a zero-copy send whose notification is to come.
    pub fn result_so_far(&self) -> Option<io::Result<usize>> {
        match self.noted {
            Noted::Result(result) => Some(outcome(result)),
            _ => None,
        }
    }

    /// Takes a completion in.
    ///
    /// # Safety
    ///
    /// `cqe` is a completion of this operation's entry, and is handed in once
    /// ([`RegisteredArena::register`](crate::RegisteredArena::register), 2).
    pub unsafe fn complete(self, cqe: &cqueue::Entry) -> Progress<M> {
        // SAFETY: the caller's promise.
        unsafe { self.complete_with(cqe.result(), cqe.flags()) }
    }

    /// Takes a completion in, of which a runtime kept only result and flags.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    pub unsafe fn complete_with(mut self, result: i32, flags: u32) -> Progress<M> {
        // SAFETY: the caller's promise.
        unsafe { self.note(result, flags) };
        match self.finish() {
            Ok(Finished { result, memory, copied }) => {
                Progress::Done { result, buffer: memory, copied }
            }
            Err(operation) => Progress::More(operation),
        }
    }

    /// Takes a completion in, and stays where it is: [`finish`](Self::finish) gives the memory back
    /// after the last one.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    #[inline]
    pub(crate) unsafe fn note(&mut self, result: i32, flags: u32) {
        self.noted = match (cqueue::notif(flags), self.noted) {
            (false, Noted::Notification(usage)) => Noted::All { result, notification: Some(usage) },
            (false, _) if cqueue::more(flags) => Noted::Result(result),
            (false, _) => Noted::All { result, notification: None },
            (true, Noted::Result(sent)) => {
                Noted::All { result: sent, notification: Some(result as u32) }
            }
            (true, _) => Noted::Notification(result as u32),
        };
    }

    /// Gives the memory back if the kernel is done with it.
    #[inline]
    pub(crate) fn finish(mut self) -> Result<Finished<M>, Operation<M>> {
        let Noted::All { result, notification } = self.noted else { return Err(self) };
        if self.kind == Kind::Read
            && let Ok(len) = u32::try_from(result)
        {
            let len = len.min(self.requested) as usize;
            // SAFETY: the kernel read that many bytes into the room that the entry named, and is
            // done.
            unsafe { self.memory.advance(len) };
        }
        let copied = match self.kind {
            Kind::SendZc { tells_usage: true } => {
                notification.map(|usage| usage & NOTIFICATION_COPIED != 0)
            }
            _ => None,
        };
        Ok(Finished { result: outcome(result), memory: self.take(), copied })
    }

    /// Gives the memory back when the entry was never pushed: the queue was full, say.
    ///
    /// # Safety
    ///
    /// The entry was not pushed to a ring, and will not be.
    pub unsafe fn not_submitted(self) -> M {
        self.take()
    }

    fn take(self) -> M {
        let mut this = ManuallyDrop::new(self);
        this.lists = None;
        // SAFETY: there until now (invariant), and `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.memory) }
    }
}

impl<M: IoMemory + Into<Payload>> Operation<M> {
    /// The operation with its memory as a [`Payload`], for a table that holds operations of every
    /// kind.
    pub fn into_any(self) -> Operation<Payload> {
        let Operation { index, kind, requested, noted, .. } = self;
        let mut this = ManuallyDrop::new(self);
        let lists = this.lists.take();
        // SAFETY: there until now (invariant), and `this` is not dropped. What the kernel was told
        // of stays where it is.
        let memory = unsafe { ManuallyDrop::take(&mut this.memory) };
        let memory = ManuallyDrop::new(memory.into());
        Operation { memory, lists, index, kind, requested, noted }
    }
}

impl Operation<Payload> {
    /// Where the memory begins.
    pub(crate) fn address(&self) -> usize {
        self.memory.address()
    }

    /// The number of the slot that this operation has to itself, if its memory is a buffer in a
    /// slot.
    pub(super) fn slot_alone(&self) -> Option<u32> {
        match &*self.memory {
            Payload::Buffer(buffer) => buffer.slot_index(),
            _ => None,
        }
    }
}

/// A completion's result as the C library would say it.
pub(super) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

impl<M: IoMemory> Drop for Operation<M> {
    fn drop(&mut self) {
        // SAFETY: there until now (invariant), and never touched again.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if matches!(self.noted, Noted::All { .. }) {
            // The kernel is done with it: it is free, like any other.
            return;
        }
        memory.quarantine();
        // The kernel may not have read the lists yet either.
        std::mem::forget(self.lists.take());
        tracing::warn!(
            index = self.index,
            "an operation was dropped before its last completion: its memory is lost, because the kernel may still use it"
        );
    }
}

impl<M: IoMemory> fmt::Debug for Operation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("kind", &self.kind)
            .field("buffer_index", &self.index)
            .field("requested", &self.requested)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}
