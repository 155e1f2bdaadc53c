//! Reads, writes and sends on a compio runtime.
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
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use compio_buf::BufResult;
use io_uring::{opcode, squeue, types};

use super::guard::RuntimeGuard;
use super::op_adapter::{Begun, Completion, NoMemory, OpAdapter, OpState};
use crate::buffer::IoMemory;
use crate::runtime::liveness::{Guard, Life};
use crate::runtime::transfer::{Attempt, SendOn, WholeSend};
use crate::sync::contain;
use crate::system::SendOptions;
use crate::uring::{Descriptor, Operation, Probe, Progress, RegisteredArena};

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
///
/// # Panics
///
/// If it is polled after its runtime has ended, while the kernel may still use its memory. The slot
/// is quarantined.
#[must_use = "futures do nothing unless polled"]
pub struct Submitted<M: IoMemory, D: 'static> {
    state: State<M, D>,
}

/// The state of an operation.
enum State<M: IoMemory, D: 'static> {
    /// The kernel is not asked.
    Refused(io::Error, M),
    /// compio does not have it yet.
    Idle {
        guard: Rc<RuntimeGuard>,
        descriptor: D,
        entry: squeue::Entry,
        operation: Unsent<M>,
    },
    Begun {
        guard: Rc<RuntimeGuard>,
        submit: Begun<TransferState<M>, D>,
    },
    /// The result was handed out.
    Done,
}

/// An operation that nobody submitted. Its drop frees the memory.
struct Unsent<M: IoMemory>(Option<Operation<M>>);

impl<M: IoMemory> Unsent<M> {
    fn into_memory(mut self) -> M {
        let operation = self.0.take().expect("there until it is taken");
        // SAFETY: its entry is beside it, and was given to nobody.
        unsafe { operation.not_submitted() }
    }
}

impl<M: IoMemory> Drop for Unsent<M> {
    fn drop(&mut self) {
        if let Some(operation) = self.0.take() {
            drop(Unsent(Some(operation)).into_memory());
        }
    }
}

impl<M: IoMemory, D: 'static> Submitted<M, D> {
    pub(super) fn new(
        guard: &Rc<RuntimeGuard>,
        descriptor: D,
        (entry, operation): (squeue::Entry, Operation<M>),
    ) -> Submitted<M, D> {
        let (guard, operation) = (Rc::clone(guard), Unsent(Some(operation)));
        Submitted { state: State::Idle { guard, descriptor, entry, operation } }
    }

    pub(super) fn refused(error: impl Into<io::Error>, memory: M) -> Submitted<M, D> {
        Submitted { state: State::Refused(error.into(), memory) }
    }
}

impl<M: IoMemory, D: Unpin + 'static> Future for Submitted<M, D> {
    type Output = BufResult<usize, M>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !matches!(self.state, State::Begun { .. }) {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Idle { guard, descriptor, entry, mut operation } if guard.is_here() => {
                    let state = TransferState { operation: operation.0.take() };
                    let adapter = OpAdapter::new(guard.liveness(), descriptor, entry, state);
                    self.state = State::Begun { guard, submit: Begun::submit(adapter) };
                }
                State::Idle { guard, operation, .. } => {
                    let error = guard.absence().into();
                    return Poll::Ready(BufResult(Err(error), operation.into_memory()));
                }
                State::Refused(error, memory) => {
                    return Poll::Ready(BufResult(Err(error), memory));
                }
                State::Begun { .. } | State::Done => panic!("polled after it was ready"),
            }
        }
        let State::Begun { guard, submit } = &mut self.state else { unreachable!("begun above") };
        let Poll::Ready(BufResult(answer, mut adapter)) = Pin::new(submit).poll(context) else {
            // Nothing turns the driver of a runtime that is over.
            assert!(guard.lasts(), "polled after its compio runtime had ended");
            return Poll::Pending;
        };
        self.state = State::Done;
        Poll::Ready(adapter.state().finish(answer.err()))
    }
}

impl<M: IoMemory, D: 'static> fmt::Debug for Submitted<M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").finish_non_exhaustive()
    }
}

/// Sends a buffer's bytes, or frozen ones, on a connected socket, all of them. Returns their
/// number. [`SendAll`] says what happens if the future is dropped.
///
/// [`Registered::send_all`](super::Registered::send_all) is zero-copy where that pays.
///
/// # Errors
///
/// The result is [`AttachError::NotInRuntime`](super::AttachError::NotInRuntime) outside a compio
/// runtime, and [`AttachError::NotOnUring`](super::AttachError::NotOnUring) on epoll. The error of
/// the socket; if a part was sent, the connection is reset.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, compio::send_all};
///
/// let arena = FixedArena::new(8, 4096)?;
/// compio::runtime::Runtime::new()?.block_on(async {
///     let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
///     let near = compio::net::UnixStream::from_std(near)?;
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (result, _) = send_all(&near, buffer.freeze()).await.into();
///     let sent: usize = result?;
///     assert_eq!(sent, 5);
///     std::io::Read::read_exact(&mut far, &mut [0; 5])?;
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn send_all<M: IoMemory + AsRef<[u8]>, D: AsFd + Clone + Unpin + 'static>(
    socket: &D,
    memory: M,
) -> SendAll<M> {
    match RuntimeGuard::current() {
        Ok(guard) => SendAll::new(&guard, socket, memory, SendOptions::new(), Weak::new()),
        Err(error) => SendAll { send: WholeSend::refused(error.into(), memory) },
    }
}

/// A send that goes out whole: a future of its result and the memory.
///
/// It begins when it is first polled. Sends of one descriptor go out one after the other, in the
/// order in which they began.
///
/// A send that is dropped before its turn sends nothing. Later it goes on without its future, and
/// the next send waits for it. If the runtime ends meanwhile, or [`drain`](super::drain) cancels
/// it, the connection is reset: no peer takes the part for the whole. A Unix socket has no reset;
/// its peer sees the end of the stream.
#[must_use = "futures do nothing unless polled"]
pub struct SendAll<M: IoMemory> {
    send: WholeSend<M>,
}

impl<M: IoMemory + AsRef<[u8]>> SendAll<M> {
    /// Makes a send from the registered memory of `pieces`, while that exists.
    pub(super) fn new<D: AsFd + Clone + Unpin + 'static>(
        guard: &Rc<RuntimeGuard>,
        socket: &D,
        memory: M,
        options: SendOptions,
        pieces: Weak<RegisteredArena>,
    ) -> SendAll<M> {
        let (len, number) = (memory.as_ref().len(), socket.as_fd().as_raw_fd());
        let (guard, socket) = (Rc::clone(guard), socket.clone());
        let (liveness, queues) = (guard.liveness().clone(), Rc::clone(&guard.sends));
        let socket = OnSocket { guard, socket, options, pieces };
        SendAll { send: WholeSend::new(&liveness, &queues, number, (memory, len), socket) }
    }
}

/// A socket on a runtime.
struct OnSocket<D> {
    guard: Rc<RuntimeGuard>,
    socket: D,
    options: SendOptions,
    pieces: Weak<RegisteredArena>,
}

impl<M: IoMemory, D: AsFd + Clone + Unpin + 'static> SendOn<M> for OnSocket<D> {
    async fn send(&self, memory: M, skip: usize, attempt: Attempt) -> (io::Result<usize>, M) {
        let options = match attempt {
            Attempt::AsAsked => self.options.wait_all(),
            Attempt::Copied => self.options.zero_copy_from(usize::MAX).wait_all(),
            Attempt::InParts => self.options.zero_copy_from(usize::MAX).in_parts(),
        };
        let pieces = self.pieces.upgrade();
        let pieces = pieces.unwrap_or_else(|| Rc::new(RegisteredArena::nothing(Probe::none())));
        let number = Descriptor::Fd(self.socket.as_fd().as_raw_fd());
        let operation = pieces.send_from(number, memory, options, skip);
        drop(pieces);
        Submitted::new(&self.guard, self.socket.clone(), operation).await.into()
    }

    async fn writable(&self) -> io::Result<()> {
        if !self.guard.is_here() {
            return Err(self.guard.absence().into());
        }
        let number = types::Fd(self.socket.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(number, libc::POLLOUT as u32).build();
        let poll = OpAdapter::new(self.guard.liveness(), self.socket.clone(), entry, NoMemory);
        Begun::submit(poll).await.0.map(drop)
    }
}

impl<M: IoMemory> Future for SendAll<M> {
    type Output = BufResult<usize, M>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, memory) = ready!(Pin::new(&mut self.send).poll(context));
        Poll::Ready(BufResult(result, memory))
    }
}

impl<M: IoMemory> fmt::Debug for SendAll<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAll").finish_non_exhaustive()
    }
}
