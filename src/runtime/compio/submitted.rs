//! A read, a write or a send on a compio runtime.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the operation, and taking memory back that the kernel never
//! had. [`OpAdapter`] hands each completion in once. If compio drops the adapter without the last
//! completion, the operation quarantines its memory.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use compio_buf::BufResult;
use compio_runtime::{Runtime, Submit};
use io_uring::squeue;

use super::op_adapter::{Completion, OpAdapter, OpState};
use crate::buffer::IoMemory;
use crate::runtime::liveness::RuntimeLiveness;
use crate::sync::contain;
use crate::uring::{Operation, Progress};

/// An operation, until the program gets the memory back.
struct TransferState<M: IoMemory> {
    operation: Option<Operation<M>>,
}

impl<M: IoMemory> OpState for TransferState<M> {
    fn complete(&mut self, completion: Completion<'_>) {
        let operation = self.operation.as_mut().expect("in compio's hands, so not given back");
        let flags = if operation.is_zero_copy() { completion.flags() } else { 0 };
        // SAFETY: a completion of this operation, from compio's driver, handed in once.
        unsafe { operation.record_completion(completion.result(), flags) };
    }

    fn before_drop(&mut self, is_known: bool) {
        let Some(operation) = self.operation.take() else { return };
        // Among operations of others: a panic would end their runtime's turn.
        contain("the drop of a payload", || {
            if !is_known {
                // SAFETY: compio never asked for the entry, so the kernel has none.
                drop(unsafe { operation.not_submitted() });
            }
            // Otherwise the operation quarantines its memory, unless its last completion is in.
        });
    }
}

impl<M: IoMemory> TransferState<M> {
    /// Returns the result and the memory, after compio gave the operation back. `refusal` is the
    /// error of compio itself, if it ended the operation.
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

/// A read, a write or a send on a compio runtime: a future of its result and the memory.
///
/// It begins when it is first polled. When it is dropped it is cancelled, and its slot stays in use
/// until the kernel has completed it.
#[must_use = "futures do nothing unless polled"]
pub struct Submitted<M: IoMemory, D: 'static> {
    submit: Submit<OpAdapter<TransferState<M>, D>>,
}

impl<M: IoMemory, D: 'static> Submitted<M, D> {
    pub(super) fn new(
        liveness: &Rc<RuntimeLiveness>,
        descriptor: D,
        (entry, operation): (squeue::Entry, Operation<M>),
    ) -> Submitted<M, D> {
        let state = TransferState { operation: Some(operation) };
        let adapter = OpAdapter::new(liveness, descriptor, entry, state);
        Submitted { submit: Runtime::with_current(|runtime| runtime.submit(adapter)) }
    }
}

impl<M: IoMemory, D: Unpin + 'static> Future for Submitted<M, D> {
    type Output = BufResult<usize, M>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let BufResult(answer, mut adapter) = ready!(Pin::new(&mut self.submit).poll(context));
        Poll::Ready(adapter.state().finish(answer.err()))
    }
}

impl<M: IoMemory, D: 'static> fmt::Debug for Submitted<M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").finish_non_exhaustive()
    }
}
