//! Operations of ours in the form that compio's driver carries.
//!
//! # Safety
//!
//! Unsafe here: the contract of compio's `OpCode`. An entry names a descriptor that the adapter
//! keeps open, and memory that the adapter's state owns until the last completion. The value that
//! made an entry gets each of its completions from compio, once: by `set_result` the last one, by
//! `push_multishot` the others.
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use compio_buf::BufResult;
use compio_driver::{Extra, IourOpCode, OpEntry};
use compio_runtime::{Runtime, Submit};
use io_uring::squeue;

use crate::region::Process;
use crate::runtime::liveness::{LoanCount, RuntimeLiveness};

/// `IORING_CQE_F_BUFFER`.
const F_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;
/// `IORING_CQE_F_NOTIF`.
const F_NOTIF: u32 = 1 << 3;
/// The position of the buffer id in the flags.
const BUFFER_SHIFT: u32 = 16;

/// A completion as compio shows it.
pub(super) struct Completion<'a> {
    result: &'a io::Result<usize>,
    extra: &'a Extra,
    more: bool,
}

impl Completion<'_> {
    /// Returns `true` if no other completion of the operation follows.
    pub(super) fn is_last(&self) -> bool {
        !self.more
    }

    /// Returns the result, as the kernel gave it.
    #[inline]
    pub(super) fn result(&self) -> i32 {
        match self.result {
            Ok(transferred) => i32::try_from(*transferred).unwrap_or(i32::MAX),
            // compio's form of ENOBUFS.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && error.raw_os_error().is_none() =>
            {
                -libc::ENOBUFS
            }
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// Returns the flags of a completion without a ring's buffer, as far as compio shows them.
    pub(super) fn flags(&self) -> u32 {
        let more = if self.more { F_MORE } else { 0 };
        let notification = self.extra.is_notification().unwrap_or(false);
        more | if notification { F_NOTIF } else { 0 }
    }

    /// Returns the flags of a receive's completion, which may have a buffer of a ring. Without a
    /// buffer compio makes an error of the question, on the heap.
    pub(super) fn receive_flags(&self) -> u32 {
        let buffer = self.extra.buffer_id();
        self.flags() | buffer.map_or(0, |id| F_BUFFER | u32::from(id) << BUFFER_SHIFT)
    }
}

/// The part of an operation that its completions change.
pub(super) trait OpState {
    /// Records a completion.
    fn complete(&mut self, completion: Completion<'_>);

    /// Runs before the operation is dropped. `is_known` tells whether the kernel may know of it.
    fn before_drop(&mut self, is_known: bool);
}

/// The state of an operation that has no memory.
pub(super) struct NoMemory;

impl OpState for NoMemory {
    fn complete(&mut self, _: Completion<'_>) {}
    fn before_drop(&mut self, _: bool) {}
}

/// An operation in compio's hands.
///
/// Boxed because compio moves what it carries some fifteen times on its way to the ring and back.
pub(super) struct OpAdapter<S: OpState, D> {
    op: Box<Op<S, D>>,
}

/// An operation with its entry, and the descriptor that the entry names.
struct Op<S: OpState, D> {
    entry: squeue::Entry,
    state: S,
    /// The count of the operation. It begins when the kernel may know of it.
    count: LoanCount,
    /// Kept open, so that the number means the same until the end.
    _descriptor: D,
}

impl<S: OpState, D> OpAdapter<S, D> {
    pub(super) fn new(
        liveness: &Rc<RuntimeLiveness>,
        descriptor: D,
        entry: squeue::Entry,
        state: S,
    ) -> OpAdapter<S, D> {
        let count = LoanCount::new(Rc::clone(liveness));
        let op = Op { entry, state, count, _descriptor: descriptor };
        OpAdapter { op: Box::new(op) }
    }

    pub(super) fn state(&mut self) -> &mut S {
        &mut self.op.state
    }
}

/// An operation that was submitted to the runtime of this thread: a future of its result.
///
/// Dropping it cancels the operation, but not in a forked child: compio would push the request into
/// queues that the child does not have.
pub(super) struct Begun<S: OpState + 'static, D: 'static> {
    submit: ManuallyDrop<Submit<OpAdapter<S, D>>>,
    process: Process,
}

impl<S: OpState + 'static, D: 'static> Begun<S, D> {
    pub(super) fn submit(operation: OpAdapter<S, D>) -> Begun<S, D> {
        let submit = Runtime::with_current(|runtime| runtime.submit(operation));
        Begun { submit: ManuallyDrop::new(submit), process: Process::current() }
    }
}

impl<S: OpState + 'static, D: 'static> Future for Begun<S, D> {
    type Output = BufResult<usize, OpAdapter<S, D>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.submit).poll(context)
    }
}

impl<S: OpState + 'static, D: 'static> Drop for Begun<S, D> {
    fn drop(&mut self) {
        if self.process.is_current() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.submit) };
        }
    }
}

impl<S: OpState, D> Drop for Op<S, D> {
    fn drop(&mut self) {
        self.state.before_drop(self.count.is_open());
    }
}

// SAFETY: the state owns what the entry names until the last completion (see the head of this
// file).
unsafe impl<S: OpState + 'static, D: 'static> IourOpCode for OpAdapter<S, D> {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        self.op.count.begin();
        self.op.entry.clone().into()
    }

    /// Refuses an operation that the kernel lacks: its maker did not ask the probe.
    fn call_blocking(&mut self, (): &mut ()) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn set_result(&mut self, (): &mut (), result: &io::Result<usize>, extra: &Extra) {
        self.op.state.complete(Completion { result, extra, more: false });
    }

    unsafe fn push_multishot(&mut self, (): &mut (), result: io::Result<usize>, extra: Extra) {
        self.op.state.complete(Completion { result: &result, extra: &extra, more: true });
    }
}

/// Refuses a runtime on epoll, which nothing of ours attaches to.
#[cfg(feature = "compio-polling")]
// SAFETY: it never waits for a descriptor.
unsafe impl<S: OpState + 'static, D: 'static> compio_driver::PollOpCode for OpAdapter<S, D> {
    type Control = ();

    fn pre_submit(&mut self, (): &mut ()) -> io::Result<compio_driver::Decision> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn operate(&mut self, (): &mut ()) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
