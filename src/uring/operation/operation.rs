//! An operation that the kernel may be working on: it owns its memory until the last completion.
//!
//! # Safety
//!
//! Unsafe here: believing a completion, and taking the memory out exactly once.
#![allow(unsafe_code)]

use crate::buffer::{Buffer, IoMemory, Payload};
use io_uring::cqueue;
use io_uring::types;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// The flag `IORING_NOTIF_USAGE_ZC_COPIED` in the result of a notification.
const NOTIFICATION_COPIED: u32 = 1 << 31;

/// The kernel's use of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kernel writes into the room behind the written bytes.
    Read,
    /// The kernel reads the written bytes.
    Write,
    /// The kernel reads the written bytes, and a completion of its own says when it is done with
    /// them.
    SendZc {
        /// True if the notification reports whether the bytes were copied.
        reports_usage: bool,
    },
}

/// An operation in flight. It owns its memory, and [`complete`](Self::complete) gives that back.
///
/// A [`RegisteredArena`](crate::RegisteredArena) makes it together with the entry to push.
/// **Dropping it quarantines its slot**: the kernel may still use the memory, so the slot is never
/// freed, and the arena's metrics count it.
///
/// The example of [`RegisteredArena`](crate::RegisteredArena) shows one from push to completion.
//
// Invariants: 1. `memory` is there until `take`, `into_any` or `drop` takes it. 2. `seen` is `All`
// only when the kernel is done with the memory.
#[must_use = "dropping an operation loses its memory for good"]
pub struct Operation<M: IoMemory = Buffer> {
    memory: ManuallyDrop<M>,
    /// For vectored operations only.
    iovecs: Option<Box<Iovecs>>,
    index: Option<u16>,
    kind: Kind,
    /// Bytes asked for.
    requested: u32,
    seen: CompletionsSeen,
}

/// The completions of one operation that have come.
///
/// | from | completion | to |
/// |---|---|---|
/// | `None` | result without `F_MORE` | `All` |
/// | `None` | result with `F_MORE` (zero-copy send) | `Result` |
/// | `None` | notification, before its result | `Notification` |
/// | `Result` | notification | `All` |
/// | `Notification` | result | `All` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CompletionsSeen {
    None,
    Result(i32),
    Notification(u32),
    All {
        result: i32,
        /// Zero-copy sends alone have one, and not each of them.
        notification: Option<u32>,
    },
}

/// The lists that the entry of a vectored operation points to. The kernel reads them when it issues
/// the operation.
#[allow(dead_code)] // read by the kernel only
pub(super) struct Iovecs {
    pub(super) ranges: Box<[libc::iovec]>,
    pub(super) message: Option<Box<libc::msghdr>>,
}

// SAFETY: addresses of the operation's own memory, which is Send; this type only keeps them.
unsafe impl Send for Iovecs {}
// SAFETY: as above.
unsafe impl Sync for Iovecs {}

/// The state of an operation after one of its completions.
#[derive(Debug)]
pub enum Progress<M: IoMemory = Buffer> {
    /// The kernel is done with the memory.
    #[non_exhaustive]
    Done {
        /// Bytes read, written or sent, or the error.
        result: io::Result<usize>,
        /// The memory. After a read it is longer by the bytes read.
        buffer: M,
        /// `Some(true)` if the kernel copied the bytes of a zero-copy send after all. `None` for
        /// every other operation, and if the kernel does not report that.
        copied: Option<bool>,
    },
    /// One more completion will come: the notification of a zero-copy send.
    More(Operation<M>),
}

impl<M: IoMemory> Operation<M> {
    pub(super) fn new(
        memory: M,
        kind: Kind,
        index: Option<u16>,
        requested: u32,
        iovecs: Option<Iovecs>,
    ) -> Operation<M> {
        let iovecs = iovecs.map(Box::new);
        let memory = ManuallyDrop::new(memory);
        Operation { memory, iovecs, index, kind, requested, seen: CompletionsSeen::None }
    }

    /// Makes an operation that moves no bytes.
    pub(crate) fn of_nothing(memory: M) -> Operation<M> {
        Operation::new(memory, Kind::Write, None, 0, None)
    }

    /// Returns the index of the registered buffer that the operation uses.
    ///
    /// Returns `None` if the operation is an ordinary one. That is so if the arena is not
    /// registered, and if the memory is not of the arena or spans two entries of the table.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{FixedArena, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: the only entry is not pushed.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// let file = std::fs::File::open("/dev/zero")?;
    /// let (_entry, operation) = registered.read(&file, arena.allocate()?, 0);
    /// assert_eq!(operation.buffer_index().is_some(), registered.mode().is_registered());
    /// # // SAFETY: as above.
    /// # drop(unsafe { operation.not_submitted() });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn buffer_index(&self) -> Option<u16> {
        self.index
    }

    /// Returns whether the operation is a zero-copy send, which completes twice.
    ///
    /// The example of [`RegisteredArena::send`](crate::RegisteredArena::send) shows it.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.kind, Kind::SendZc { .. })
    }

    /// Returns the number of bytes that the operation asked for.
    pub fn requested(&self) -> usize {
        self.requested as usize
    }

    /// Returns the bytes sent, or the error, of a zero-copy send whose notification has not come
    /// yet. Returns `None` in every other state.
    pub fn result_so_far(&self) -> Option<io::Result<usize>> {
        match self.seen {
            CompletionsSeen::Result(result) => Some(to_result(result)),
            _ => None,
        }
    }

    /// Returns the memory, for its length and its address.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Takes a completion in.
    ///
    /// The example of [`RegisteredArena`](crate::RegisteredArena) shows it.
    ///
    /// # Safety
    ///
    /// `cqe` is a completion of this operation's entry, and is handed in once
    /// ([`RegisteredArena::register`](crate::RegisteredArena::register), 2).
    pub unsafe fn complete(self, cqe: &cqueue::Entry) -> Progress<M> {
        // SAFETY: the caller's promise.
        unsafe { self.complete_with(cqe.result(), cqe.flags()) }
    }

    /// Takes a completion in, for a runtime that keeps only result and flags of it.
    ///
    /// ```no_run
    /// # fn on_completion(operation: uring_arena::Operation, result: i32, flags: u32) {
    /// use uring_arena::Progress;
    ///
    /// // SAFETY: result and flags of a completion of this operation, handed in once.
    /// match unsafe { operation.complete_with(result, flags) } {
    ///     Progress::Done { result, buffer, .. } => println!("{result:?}: {} bytes", buffer.len()),
    ///     Progress::More(operation) => drop(operation), // keep it for the notification
    /// }
    /// # }
    /// ```
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    pub unsafe fn complete_with(mut self, result: i32, flags: u32) -> Progress<M> {
        // SAFETY: the caller's promise.
        unsafe { self.record_completion(result, flags) };
        self.finish()
    }

    /// Takes a completion in, and leaves the operation where it is. [`finish`](Self::finish) gives
    /// the memory back after the last completion.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    #[inline]
    pub(crate) unsafe fn record_completion(&mut self, result: i32, flags: u32) {
        self.seen = match (cqueue::notif(flags), self.seen) {
            (false, CompletionsSeen::Notification(usage)) => {
                CompletionsSeen::All { result, notification: Some(usage) }
            }
            (false, _) if cqueue::more(flags) => CompletionsSeen::Result(result),
            (false, _) => CompletionsSeen::All { result, notification: None },
            (true, CompletionsSeen::Result(sent)) => {
                CompletionsSeen::All { result: sent, notification: Some(result as u32) }
            }
            (true, _) => CompletionsSeen::Notification(result as u32),
        };
    }

    /// Returns whether every completion has come, so that the kernel is done with the memory.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.seen, CompletionsSeen::All { .. })
    }

    /// Gives the memory back if the kernel is done with it, and otherwise the operation.
    #[inline]
    pub(crate) fn finish(mut self) -> Progress<M> {
        let CompletionsSeen::All { result, notification } = self.seen else {
            return Progress::More(self);
        };
        if self.kind == Kind::Read
            && let Ok(len) = u32::try_from(result)
        {
            let len = len.min(self.requested) as usize;
            // SAFETY: the kernel read that many bytes into the room that the entry named, and is
            // done.
            unsafe { self.memory.advance(len) };
        }
        let copied = match self.kind {
            Kind::SendZc { reports_usage: true } => {
                notification.map(|usage| usage & NOTIFICATION_COPIED != 0)
            }
            _ => None,
        };
        Progress::Done { result: to_result(result), buffer: self.take(), copied }
    }

    /// Gives the memory back if the entry was never pushed, for example because the queue was full.
    ///
    /// The example of [`buffer_index`](Self::buffer_index) shows it.
    ///
    /// # Safety
    ///
    /// The entry was not pushed to a ring, and will not be.
    pub unsafe fn not_submitted(self) -> M {
        self.take()
    }

    fn take(self) -> M {
        let mut this = ManuallyDrop::new(self);
        this.iovecs = None;
        // SAFETY: there until now (invariant 1), and `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.memory) }
    }
}

impl<M: IoMemory + Into<Payload>> Operation<M> {
    /// Turns the memory into a [`Payload`], for a table that holds operations of every kind.
    ///
    /// ```
    /// use uring_arena::{Buffer, Operation, Payload};
    ///
    /// # #[allow(dead_code)]
    /// fn keep(table: &mut Vec<Operation<Payload>>, operation: Operation<Buffer>) {
    ///     table.push(operation.into_any());
    /// }
    /// ```
    pub fn into_any(self) -> Operation<Payload> {
        let Operation { index, kind, requested, seen, .. } = self;
        let mut this = ManuallyDrop::new(self);
        let iovecs = this.iovecs.take();
        // SAFETY: there until now (invariant 1), and `this` is not dropped. The bytes that the
        // kernel knows stay at their address.
        let memory = unsafe { ManuallyDrop::take(&mut this.memory) };
        let memory = ManuallyDrop::new(memory.into());
        Operation { memory, iovecs, index, kind, requested, seen }
    }
}

/// Turns a completion's result into that of a call of the C library.
fn to_result(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

impl<M: IoMemory> Drop for Operation<M> {
    fn drop(&mut self) {
        // SAFETY: there until now (invariant 1), and never touched again.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if self.is_finished() {
            // The kernel is done with the memory, so it is freed as usual.
            return;
        }
        memory.quarantine();
        // The kernel may not have read the lists yet either.
        std::mem::forget(self.iovecs.take());
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
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// The file or socket of an operation: a descriptor of the process, or an index in the ring's table
/// of files.
///
/// The program that pushes the entry keeps the file open until the operation is submitted.
///
/// ```
/// use io_uring::types;
/// use uring_arena::Descriptor;
///
/// let file = std::fs::File::open("/dev/zero")?;
/// assert!(matches!(Descriptor::from(&file), Descriptor::Fd(_)));
/// assert_eq!(Descriptor::from(types::Fixed(3)), Descriptor::Fixed(3));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// A descriptor of the process.
    Fd(RawFd),
    /// An index in the ring's table of files.
    Fixed(u32),
}

impl From<types::Fd> for Descriptor {
    fn from(fd: types::Fd) -> Descriptor {
        Descriptor::Fd(fd.0)
    }
}

impl From<types::Fixed> for Descriptor {
    fn from(fixed: types::Fixed) -> Descriptor {
        Descriptor::Fixed(fixed.0)
    }
}

impl<T: AsFd> From<&T> for Descriptor {
    fn from(file: &T) -> Descriptor {
        Descriptor::Fd(file.as_fd().as_raw_fd())
    }
}

/// Builds an entry for either kind of descriptor.
macro_rules! build {
    ($descriptor:expr, $fd:ident => $opcode:expr) => {
        match $descriptor {
            $crate::uring::operation::operation::Descriptor::Fd(fd) => {
                let $fd = io_uring::types::Fd(fd);
                $opcode.build()
            }
            $crate::uring::operation::operation::Descriptor::Fixed(index) => {
                let $fd = io_uring::types::Fixed(index);
                $opcode.build()
            }
        }
    };
}
pub(super) use build;
