//! The transfers of the adapters: those that are refused, and sends that go out whole.
//!
//! A send goes out whole, or its connection is reset. It is several operations if the kernel cuts
//! it, so sends of one socket wait for each other. It goes on when its future is dropped.
//!
//! # Safety
//!
//! Unsafe here: borrowing a socket by its number, which the caller keeps open.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::liveness::{Life, RuntimeLiveness};
use crate::buffer::Buffer;
use crate::sync::contain;
use crate::system::{disconnect, shut_down, socket_type};

/// The last offset of a file. The kernel takes larger ones for negative numbers, and -1 for the
/// file's own position.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// A read or a write that the kernel is not asked for.
#[derive(thiserror::Error)]
enum Refusal {
    #[error(
        "the buffer has no room left: its {capacity} bytes are all written; clear it, or give a new one"
    )]
    NoRoom { capacity: usize },
    #[error(
        "{len} bytes at offset {offset} end behind {OFFSET_MAX}, the last offset of a file: give a smaller offset"
    )]
    Offset { offset: u64, len: usize },
}

debug_is_display!(Refusal);

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, refusal)
    }
}

/// Checks that a read has room to read into.
pub(super) fn check_room(buffer: &Buffer) -> io::Result<()> {
    let capacity = buffer.capacity();
    if buffer.len() == capacity {
        return Err(Refusal::NoRoom { capacity }.into());
    }
    Ok(())
}

/// Checks that `len` bytes at `offset` lie within the offsets of a file.
pub(super) fn check_offset(offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= OFFSET_MAX => Ok(()),
        _ => Err(Refusal::Offset { offset, len }.into()),
    }
}

/// A send that ended after a part of its bytes.
#[derive(thiserror::Error)]
#[error("{sent} of {len} bytes were sent, and the connection is reset: {error}")]
struct PartialSend {
    sent: usize,
    len: usize,
    error: io::Error,
}

debug_is_display!(PartialSend);

/// The sends of one runtime, in the order of their sockets.
#[derive(Default)]
pub(super) struct SendQueues {
    /// The sends of each socket, by number: the first has its turn.
    queues: RefCell<BTreeMap<RawFd, BTreeMap<u64, Waker>>>,
    next_number: Cell<u64>,
}

/// A place among the sends of a socket.
struct Turn {
    queues: Rc<SendQueues>,
    descriptor: RawFd,
    number: u64,
}

impl Turn {
    fn join(queues: Rc<SendQueues>, descriptor: RawFd) -> Turn {
        let number = queues.next_number.get();
        queues.next_number.set(number + 1);
        let waker = Waker::noop().clone();
        queues.queues.borrow_mut().entry(descriptor).or_default().insert(number, waker);
        Turn { queues, descriptor, number }
    }

    /// Waits until the sends before this one have ended.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        // Cloned before, and dropped after the cell is borrowed: a waker may run anything.
        let waker = context.waker().clone();
        let mut queues = self.queues.queues.borrow_mut();
        let queue = queues.entry(self.descriptor).or_default();
        if queue.first_key_value().is_some_and(|(&first, _)| first == self.number) {
            return Poll::Ready(());
        }
        let replaced = queue.insert(self.number, waker);
        drop(queues);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.queues.queues.borrow_mut();
        let Some(queue) = queues.get_mut(&self.descriptor) else { return };
        let left = queue.remove(&self.number);
        let next = queue.first_entry().map(|mut first| first.insert(Waker::noop().clone()));
        if next.is_none() {
            queues.remove(&self.descriptor);
        }
        drop(queues);
        drop(left);
        if let Some(next) = next {
            contain("the waker of a send", || next.wake());
        }
    }
}

/// The tries of one operation of a send, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// As the program asked for it.
    AsAsked,
    /// With a copy of the bytes, for sockets without zero-copy sends, and without room for them.
    Copied,
    /// In as many operations as it takes, for sockets that refuse `MSG_WAITALL`.
    InParts,
}

impl Attempt {
    /// Returns the try after one that was refused.
    fn after(self, error: &io::Error) -> Option<Attempt> {
        match (self, error.raw_os_error()?) {
            (Attempt::AsAsked, libc::ENOMEM | libc::ENOBUFS) => Some(Attempt::Copied),
            (Attempt::AsAsked, libc::EOPNOTSUPP | libc::EINVAL) => Some(Attempt::Copied),
            (Attempt::Copied, libc::EOPNOTSUPP | libc::EINVAL) => Some(Attempt::InParts),
            _ => None,
        }
    }
}

/// A socket on a runtime, which it keeps open.
pub(super) trait SendOn<M>: 'static {
    /// Sends what is behind the first `skip` bytes.
    fn send(
        &self,
        memory: M,
        skip: usize,
        attempt: Attempt,
    ) -> impl Future<Output = (io::Result<usize>, M)>;

    /// Waits until the socket, which is set not to block, takes bytes.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;
}

/// The state of a send that its future and its operations share.
#[derive(Default)]
struct Sending {
    /// Bytes may have been sent.
    has_begun: Cell<bool>,
    /// Its future was dropped.
    is_abandoned: Cell<bool>,
}

/// A future of the result of a send, and its memory.
type Sent<M> = Pin<Box<dyn Future<Output = (io::Result<usize>, M)>>>;

/// A send that goes out whole: a future of its result and the memory.
pub(super) struct WholeSend<M: 'static> {
    operations: Option<Sent<M>>,
    sending: Rc<Sending>,
    liveness: Option<Rc<RuntimeLiveness>>,
    descriptor: RawFd,
}

impl<M> WholeSend<M> {
    /// Makes a send of `len` bytes on a socket, whose number is `descriptor`.
    pub(super) fn new(
        liveness: &Rc<RuntimeLiveness>,
        queues: &Rc<SendQueues>,
        descriptor: RawFd,
        (memory, len): (M, usize),
        socket: impl SendOn<M>,
    ) -> WholeSend<M> {
        let sending = Rc::new(Sending::default());
        let operations = Operations {
            sending: Rc::clone(&sending),
            liveness: Rc::clone(liveness),
            queues: Rc::clone(queues),
            descriptor,
            len,
        };
        WholeSend {
            operations: Some(Box::pin(operations.run(memory, socket))),
            sending,
            liveness: Some(Rc::clone(liveness)),
            descriptor,
        }
    }

    /// Makes a send that fails at once.
    pub(super) fn refused(error: io::Error, memory: M) -> WholeSend<M> {
        WholeSend {
            operations: Some(Box::pin(ready((Err(error), memory)))),
            sending: Rc::default(),
            liveness: None,
            descriptor: -1,
        }
    }
}

impl<M> Future for WholeSend<M> {
    type Output = (io::Result<usize>, M);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let operations = self.operations.as_mut().expect("polled after it was ready");
        let output = operations.as_mut().poll(context);
        if output.is_ready() {
            self.operations = None;
        }
        output
    }
}

impl<M> Drop for WholeSend<M> {
    fn drop(&mut self) {
        let Some(operations) = self.operations.take() else { return };
        self.sending.is_abandoned.set(true);
        if let Some(liveness) = &self.liveness
            && self.sending.has_begun.get()
            && liveness.lasts()
        {
            // The rest of its bytes still goes out.
            liveness.adopt(Box::pin(async move { drop(operations.await) }), self.descriptor);
        }
    }
}

/// The operations of one send, one after the other.
struct Operations {
    sending: Rc<Sending>,
    liveness: Rc<RuntimeLiveness>,
    queues: Rc<SendQueues>,
    descriptor: RawFd,
    len: usize,
}

impl Operations {
    async fn run<M>(self, mut memory: M, socket: impl SendOn<M>) -> (io::Result<usize>, M) {
        let turn = Turn::join(Rc::clone(&self.queues), self.descriptor);
        poll_fn(|context| turn.poll(context)).await;
        self.sending.has_begun.set(true);
        // Dropped before the turn: the next send meets the connection as this one left it.
        let (descriptor, liveness) = (self.descriptor, Rc::clone(&self.liveness));
        let mut part = SentPart { descriptor, liveness, is_torn: true };
        let (mut sent, mut attempt) = (0, Attempt::AsAsked);
        let result = loop {
            if sent == self.len {
                break Ok(sent);
            }
            let (result, given_back) = socket.send(memory, sent, attempt).await;
            memory = given_back;
            let next = match result {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => {
                    sent += more;
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await,
                Err(error) => match attempt.after(&error) {
                    Some(next) => {
                        attempt = next;
                        Ok(())
                    }
                    None => Err(error),
                },
            };
            match next {
                Err(error) => break Err(error),
                Ok(()) if sent < self.len && self.is_cancelled() => {
                    break Err(io::Error::from_raw_os_error(libc::ECANCELED));
                }
                Ok(()) => {}
            }
        };
        part.is_torn = sent > 0 && sent < self.len;
        match result {
            Err(error) if part.is_torn => {
                let kind = error.kind();
                let error = PartialSend { sent, len: self.len, error };
                (Err(io::Error::new(kind, error)), memory)
            }
            result => (result, memory),
        }
    }

    /// Returns `true` if a `drain` cancels the send. An operation that was cancelled after a part
    /// has no error.
    fn is_cancelled(&self) -> bool {
        self.sending.is_abandoned.get() && self.liveness.is_draining()
    }
}

/// A part of a send that may be on its way. If it is dropped while it is torn, nobody may take the
/// part for the whole: the connection is reset.
struct SentPart {
    descriptor: RawFd,
    liveness: Rc<RuntimeLiveness>,
    is_torn: bool,
}

impl Drop for SentPart {
    fn drop(&mut self) {
        // The connection of a forked child's copy is the parent's.
        let is_torn = self.is_torn && self.liveness.is_ours();
        if !is_torn {
            return;
        }
        // SAFETY: the caller keeps the socket open while its send is there.
        let socket = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        if socket_type(socket) == Some(libc::SOCK_STREAM) && !disconnect(socket) {
            // Not TCP. The later sends fail, and the peer sees the end of the stream.
            let _ = shut_down(socket, Shutdown::Both);
        }
    }
}
