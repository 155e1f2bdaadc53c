//! The ring and its table of operations.
//!
//! The table owns whatever is in flight; a future holds only the key of its operation.
//!
//! # Safety
//!
//! The unsafe blocks rely on the contract of `RegisteredArena`, which this file keeps by three
//! rules:
//!
//! 1. Only `begin` pushes entries that name memory or files. It puts both into the table first.
//! 2. The `user_data` of a completion is the key of its operation. The key is free again only
//!    after the last completion.
//! 3. The arena is never unregistered.
#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, squeue, types};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use uring_arena::{
    Buffer, FixedArena, Operation, Payload, Progress, RegisteredArena, RegistrationPolicy,
    SendOptions,
};

/// The `user_data` of a cancel request, whose completion is ignored.
const CANCEL: u64 = u64::MAX;

/// The result of an operation, with its memory if it has any.
type Outcome = (io::Result<usize>, Option<Payload>);
/// A descriptor that stays open until the kernel has completed the operation.
type File = Rc<dyn AsFd>;
/// The memory of an operation; `None` for a poll, which has none.
type Memory = Option<Operation<Payload>>;

/// The state of a key of the table.
enum Entry {
    Free,
    /// The kernel has the operation. There is no waker if the future was dropped.
    Running(Memory, File, Option<Waker>),
    /// The operation has completed, and its future has not yet taken the outcome.
    Done(Outcome),
}

pub struct Ring {
    uring: IoUring,
    registered: RegisteredArena,
    table: Vec<Entry>,
    free_keys: Vec<usize>,
    pub in_flight: usize,
    pub cancelled: usize,
}

#[derive(Clone)]
pub struct SharedRing(pub Rc<RefCell<Ring>>);

impl SharedRing {
    /// Waits until `file` can be read from, or has a connection to accept.
    pub async fn readable(&self, file: File) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(file.as_fd().as_raw_fd()), libc::POLLIN as u32);
        self.begin(poll.build(), None, file)?.await.0.map(drop)
    }

    /// Reads into `buffer`. Returns the number of bytes, 0 at the end of the stream.
    pub async fn read(&self, file: File, buffer: Buffer) -> io::Result<(usize, Buffer)> {
        let (entry, operation) = self.0.borrow().registered.read(&file, buffer, 0);
        match self.begin(entry, Some(operation.into_any()), file)?.await {
            (result, Some(Payload::Buffer(buffer))) => Ok((result?, buffer)),
            _ => unreachable!("a read gives its buffer back"),
        }
    }

    /// Sends the whole payload. Returns the number of bytes.
    pub async fn send(&self, file: File, payload: impl Into<Payload>) -> io::Result<usize> {
        let options = SendOptions::new().wait_all();
        let (entry, operation) = self.0.borrow().registered.send(&file, payload.into(), options);
        self.begin(entry, Some(operation), file)?.await.0
    }

    /// Puts an operation into the table and pushes its entry.
    ///
    /// If the push fails, the operation stays in the table: its slot is lost, not freed.
    fn begin(&self, entry: squeue::Entry, memory: Memory, file: File) -> io::Result<Completion> {
        let mut ring = self.0.borrow_mut();
        let free = ring.free_keys.pop();
        let key = free.unwrap_or(ring.table.len());
        ring.table.extend(free.is_none().then_some(Entry::Free));
        ring.table[key] = Entry::Running(memory, file, Some(Waker::noop().clone()));
        ring.push(&entry.user_data(key as u64))?;
        ring.in_flight += 1;
        Ok(Completion { ring: self.clone(), key: Some(key) })
    }
}

impl Ring {
    pub fn new(arena: &FixedArena) -> Result<Ring, Box<dyn std::error::Error>> {
        let uring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        let registered =
            // SAFETY: the contract of `RegisteredArena` is kept by rules 1 to 3.
            unsafe { RegisteredArena::register(&uring, arena, RegistrationPolicy::Best)? };
        Ok(Ring {
            uring,
            registered,
            table: Vec::new(),
            free_keys: Vec::new(),
            in_flight: 0,
            cancelled: 0,
        })
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: by rule 1, the table owns the memory and the file of the entry until its last
        // completion.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits, waits for a completion for at most `timeout`, and handles all that have arrived.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let (submitter, timeout) = (self.uring.submitter(), timeout.map(types::Timespec::from));
        let submitted = match &timeout {
            Some(timeout) => {
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(timeout))
            }
            None => submitter.submit_and_wait(1),
        };
        match submitted.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
        }
        for cqe in self.uring.completion().filter(|cqe| cqe.user_data() != CANCEL) {
            let key = cqe.user_data() as usize;
            let running = std::mem::replace(&mut self.table[key], Entry::Free);
            let Entry::Running(memory, file, waker) = running else { unreachable!("by rule 2") };
            // SAFETY: by rule 2, this is a completion of this operation, and it is handled once.
            let outcome = match memory.map(|operation| unsafe { operation.complete(&cqe) }) {
                Some(Progress::Done { result, buffer, .. }) => (result, Some(buffer)),
                Some(Progress::More(operation)) => {
                    self.table[key] = Entry::Running(Some(operation), file, waker);
                    continue;
                }
                // A poll has no result but its completion.
                None => (Ok(0), None),
            };
            self.in_flight -= 1;
            match waker {
                Some(waker) => {
                    self.table[key] = Entry::Done(outcome);
                    waker.wake();
                }
                // The future was dropped: dropping the outcome here frees the slot.
                None => self.free_keys.push(key),
            }
        }
        Ok(())
    }
}

/// The future of an operation in the table.
struct Completion {
    ring: SharedRing,
    /// The key of the operation; `None` once the outcome was taken.
    key: Option<usize>,
}

impl Future for Completion {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let ring = self.ring.clone();
        let ring = &mut *ring.0.borrow_mut();
        let key = self.key.expect("not polled after it was ready");
        if let Entry::Running(_, _, waker) = &mut ring.table[key] {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let done = std::mem::replace(&mut ring.table[key], Entry::Free);
        let Entry::Done(outcome) = done else { unreachable!("the key belongs to this future") };
        ring.free_keys.push(key);
        self.key = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Completion {
    /// Asks the kernel to cancel the operation, which stays in the table until its last completion.
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let ring = &mut *self.ring.0.borrow_mut();
        if let Entry::Running(_, _, waker) = &mut ring.table[key] {
            *waker = None;
            ring.cancelled += 1;
            let _ = ring.push(&opcode::AsyncCancel::new(key as u64).build().user_data(CANCEL));
        } else {
            ring.table[key] = Entry::Free;
            ring.free_keys.push(key);
        }
    }
}
