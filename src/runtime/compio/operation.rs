//! An operation of ours as compio's driver carries it.
//!
//! # Safety
//!
//! Unsafe here: the contract of compio's `OpCode`, and handing completions to our operation. The
//! entry names memory that the operation owns until its last completion, and a descriptor that this
//! value keeps open. compio gives each completion to the value whose entry it is of, once:
//! `push_multishot` for those that more will follow, `set_result` for the last. If it drops the
//! value without, the operation quarantines its memory.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use compio_buf::BufResult;
use compio_driver::{Extra, IourOpCode, OpEntry};
use compio_runtime::{Runtime, Submit};
use io_uring::squeue;

use crate::buffer::IoMemory;
use crate::runtime::session::Session;
use crate::uring::{Operation, Progress};

/// `IORING_CQE_F_BUFFER`.
const F_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;
/// `IORING_CQE_F_NOTIF`.
const F_NOTIF: u32 = 1 << 3;
/// Where the buffer id stands in the flags.
const BUFFER_SHIFT: u32 = 16;

/// The result of a completion, as the kernel said it.
pub(super) fn raw_result(result: &io::Result<usize>) -> i32 {
    match result {
        Ok(transferred) => i32::try_from(*transferred).unwrap_or(i32::MAX),
        // What compio makes of ENOBUFS.
        Err(error)
            if error.kind() == io::ErrorKind::ResourceBusy && error.raw_os_error().is_none() =>
        {
            -libc::ENOBUFS
        }
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// The flags of a completion that has no buffer of a ring, as far as compio shows them.
fn raw_flags(extra: &Extra, more: bool) -> u32 {
    let mut flags = if more { F_MORE } else { 0 };
    if extra.is_notification().unwrap_or(false) {
        flags |= F_NOTIF;
    }
    flags
}

/// The flags of a completion that may have a buffer of a ring. Where there is none compio makes an
/// error of it, on the heap: to be asked only of receives.
pub(super) fn raw_receive_flags(extra: &Extra, more: bool) -> u32 {
    let buffer = extra.buffer_id().map_or(0, |id| F_BUFFER | u32::from(id) << BUFFER_SHIFT);
    raw_flags(extra, more) | buffer
}

/// What compio carries.
///
/// Boxed because compio moves what it carries some fifteen times on its way to the ring and back.
pub(super) struct Carried<M: IoMemory, D> {
    under_way: Box<UnderWay<M, D>>,
}

/// An operation with its entry, and the descriptor that it names.
struct UnderWay<M: IoMemory, D> {
    entry: squeue::Entry,
    /// There until the user gets the memory back.
    operation: Option<Operation<M>>,
    session: Rc<Session>,
    /// Whether the kernel may know of it; counted in the session then.
    submitted: bool,
    /// Kept open, so that the number means the same until the end.
    _descriptor: D,
}

impl<M: IoMemory, D> UnderWay<M, D> {
    fn note(&mut self, result: &io::Result<usize>, extra: &Extra, more: bool) {
        let operation = self.operation.as_mut().expect("in compio's hands, so not given back");
        let flags = if operation.is_zero_copy() { raw_flags(extra, more) } else { 0 };
        // SAFETY: a completion of this operation, from compio's driver, handed in once.
        unsafe { operation.record_completion(raw_result(result), flags) };
    }

    /// The result and the memory, after compio gave it back. `refusal` is why compio itself ended
    /// it, if it did.
    fn finish(&mut self, refusal: Option<io::Error>) -> BufResult<usize, M> {
        let operation = self.operation.take().expect("given back once");
        match operation.finish() {
            Progress::Done { result, buffer, .. } => BufResult(result, buffer),
            Progress::More(operation) => {
                // compio refused it before the kernel saw it, or ran it where it cannot run.
                let error = refusal.unwrap_or(io::ErrorKind::Unsupported.into());
                // SAFETY: its driver ended it without a completion, so the kernel has no entry of
                // it.
                BufResult(Err(error), unsafe { operation.not_submitted() })
            }
        }
    }
}

impl<M: IoMemory, D> Drop for UnderWay<M, D> {
    fn drop(&mut self) {
        if self.submitted {
            self.session.note_back();
        } else if let Some(operation) = self.operation.take() {
            // SAFETY: compio never asked for the entry, so it pushed none.
            drop(unsafe { operation.not_submitted() });
        }
        // Otherwise the operation quarantines its memory, unless its last completion is in.
    }
}

// SAFETY: what the entry names is owned by this value until its last completion (see the head of
// this file).
unsafe impl<M: IoMemory, D: 'static> IourOpCode for Carried<M, D> {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        let under_way = &mut *self.under_way;
        if !std::mem::replace(&mut under_way.submitted, true) {
            under_way.session.note_lent();
        }
        under_way.entry.clone().into()
    }

    /// The kernel lacks the operation; what asked for it did not look at the probe.
    fn call_blocking(&mut self, (): &mut ()) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn set_result(&mut self, (): &mut (), result: &io::Result<usize>, extra: &Extra) {
        self.under_way.note(result, extra, false);
    }

    unsafe fn push_multishot(&mut self, (): &mut (), result: io::Result<usize>, extra: Extra) {
        self.under_way.note(&result, &extra, true);
    }
}

/// An epoll runtime: nothing of ours gets this far, because nothing attaches to it.
#[cfg(feature = "compio-polling")]
// SAFETY: it never waits for a descriptor.
unsafe impl<M: IoMemory, D: 'static> compio_driver::PollOpCode for Carried<M, D> {
    type Control = ();

    fn pre_submit(&mut self, (): &mut ()) -> io::Result<compio_driver::Decision> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn operate(&mut self, (): &mut ()) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// An operation on a compio runtime; gives its result and the memory back.
///
/// It begins when it is first polled. When it is dropped it is cancelled, and its slot stays in use
/// until the kernel has completed it.
#[must_use = "futures do nothing unless polled"]
pub struct Submitted<M: IoMemory, D: 'static> {
    submit: Submit<Carried<M, D>>,
}

impl<M: IoMemory, D: 'static> Submitted<M, D> {
    pub(super) fn new(
        session: &Rc<Session>,
        descriptor: D,
        (entry, operation): (squeue::Entry, Operation<M>),
    ) -> Submitted<M, D> {
        let under_way = UnderWay {
            entry,
            operation: Some(operation),
            session: Rc::clone(session),
            submitted: false,
            _descriptor: descriptor,
        };
        let carried = Carried { under_way: Box::new(under_way) };
        Submitted { submit: Runtime::with_current(|runtime| runtime.submit(carried)) }
    }
}

impl<M: IoMemory, D: Unpin + 'static> Future for Submitted<M, D> {
    type Output = BufResult<usize, M>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let BufResult(answer, mut carried) = ready!(Pin::new(&mut self.submit).poll(context));
        Poll::Ready(carried.under_way.finish(answer.err()))
    }
}

impl<M: IoMemory, D: 'static> fmt::Debug for Submitted<M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").finish_non_exhaustive()
    }
}
