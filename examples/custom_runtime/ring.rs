//! The ring and the table of operations. What is in flight belongs to the table; futures hold
//! nothing but a number.
//!
//! # Safety
//!
//! Unsafe here: the contract of `RegisteredArena`. 1. `begin` alone pushes entries that name memory
//! or files, and puts both into the table first. 2. A completion carries its place, which is free
//! again only after the last completion. 3. Nothing is ever unregistered.
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

/// The `user_data` of entries that nobody waits for.
const NOBODY: u64 = u64::MAX;

/// What an operation came to, with its memory if it had any.
type Outcome = (io::Result<usize>, Option<Payload>);
/// Anything with a descriptor, kept open until the kernel is done with it.
type File = Rc<dyn AsFd>;
/// An operation with memory, if it has any.
type Held = Option<Operation<Payload>>;

enum Place {
    Free,
    Running(Held, File, Option<Waker>), // the kernel has it; without a waker the future was dropped
    Done(Outcome),                      // nobody has asked yet
}

pub struct Ring {
    uring: IoUring,
    registered: RegisteredArena,
    places: Vec<Place>,
    free: Vec<usize>,
    pub in_flight: usize,
    pub cancelled: usize,
}

#[derive(Clone)]
pub struct SharedRing(pub Rc<RefCell<Ring>>);

impl SharedRing {
    /// Waits until there is something to read, or to accept.
    pub async fn readable(&self, file: File) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(file.as_fd().as_raw_fd()), libc::POLLIN as u32);
        self.begin(poll.build(), None, file)?.await.0.map(drop)
    }

    pub async fn read(&self, file: File, buffer: Buffer) -> io::Result<(usize, Buffer)> {
        let (entry, operation) = self.0.borrow().registered.read(&file, buffer, 0);
        match self.begin(entry, Some(operation.into_any()), file)?.await {
            (result, Some(Payload::Buffer(buffer))) => Ok((result?, buffer)),
            _ => unreachable!("a read gives its buffer back"),
        }
    }

    /// Sends all of it.
    pub async fn send(&self, file: File, payload: impl Into<Payload>) -> io::Result<usize> {
        let options = SendOptions::new().wait_all();
        let (entry, operation) = self.0.borrow().registered.send(&file, payload.into(), options);
        self.begin(entry, Some(operation), file)?.await.0
    }

    /// Puts an operation into the table and pushes its entry. If that fails it stays there, and its
    /// slot is lost, not freed.
    fn begin(&self, entry: squeue::Entry, operation: Held, file: File) -> io::Result<OutcomeOf> {
        let mut ring = self.0.borrow_mut();
        let free = ring.free.pop();
        let place = free.unwrap_or(ring.places.len());
        ring.places.extend(free.is_none().then_some(Place::Free));
        ring.places[place] = Place::Running(operation, file, Some(Waker::noop().clone()));
        ring.push(&entry.user_data(place as u64))?;
        ring.in_flight += 1;
        Ok(OutcomeOf { ring: self.clone(), place: Some(place) })
    }
}

impl Ring {
    pub fn new(arena: &FixedArena) -> Result<Ring, Box<dyn std::error::Error>> {
        let uring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        // SAFETY: see the head of this file.
        let registered =
            unsafe { RegisteredArena::register(&uring, arena, RegistrationPolicy::Best)? };
        Ok(Ring {
            uring,
            registered,
            places: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            cancelled: 0,
        })
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the table owns what the entry names, until its last completion (1).
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Submits, waits for a completion or for `patience` to pass, and takes in all there are.
    pub fn turn(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let (submitter, patience) = (self.uring.submitter(), patience.map(types::Timespec::from));
        let submitted = match &patience {
            Some(patience) => {
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(patience))
            }
            None => submitter.submit_and_wait(1),
        };
        match submitted.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
        }
        for cqe in self.uring.completion().filter(|cqe| cqe.user_data() != NOBODY) {
            let place = &mut self.places[cqe.user_data() as usize];
            let running = std::mem::replace(place, Place::Free);
            let Place::Running(operation, file, waiter) = running else { unreachable!("by (2)") };
            // SAFETY: a completion of this operation, taken from the queue once (2).
            let outcome = match operation.map(|operation| unsafe { operation.complete(&cqe) }) {
                Some(Progress::Done { result, buffer, .. }) => (result, Some(buffer)),
                Some(Progress::More(operation)) => {
                    *place = Place::Running(Some(operation), file, waiter);
                    continue;
                }
                None => (Ok(0), None), // a poll: being told is all there is to it
            };
            self.in_flight -= 1;
            match waiter {
                Some(waiter) => {
                    *place = Place::Done(outcome);
                    waiter.wake();
                }
                // Nobody waits any more, and the outcome is dropped: here the slot comes home.
                None => self.free.push(cqe.user_data() as usize),
            }
        }
        Ok(())
    }
}

/// The future of an operation in the table.
struct OutcomeOf {
    ring: SharedRing,
    place: Option<usize>, // `None` once it was answered
}

impl Future for OutcomeOf {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let ring = self.ring.clone();
        let ring = &mut *ring.0.borrow_mut();
        let at = self.place.expect("not asked after the answer");
        if let Place::Running(_, _, waiter) = &mut ring.places[at] {
            *waiter = Some(context.waker().clone());
            return Poll::Pending;
        }
        let done = std::mem::replace(&mut ring.places[at], Place::Free);
        let Place::Done(outcome) = done else { unreachable!("the place is this future's") };
        ring.free.push(at);
        self.place = None;
        Poll::Ready(outcome)
    }
}

impl Drop for OutcomeOf {
    /// The operation stays in the table until the kernel is done with it. Asked to cancel, that is
    /// soon; else when the peer acts.
    fn drop(&mut self) {
        let Some(at) = self.place else { return };
        let ring = &mut *self.ring.0.borrow_mut();
        if let Place::Running(_, _, waiter) = &mut ring.places[at] {
            *waiter = None;
            ring.cancelled += 1;
            let _ = ring.push(&opcode::AsyncCancel::new(at as u64).build().user_data(NOBODY));
        } else {
            ring.places[at] = Place::Free;
            ring.free.push(at);
        }
    }
}
