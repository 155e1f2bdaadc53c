//! The descriptor that wakes a driver which waits in the kernel: for slots that were granted to its
//! rings, and for the wakers that `Driver::waker` gave out.
//!
//! # Safety
//!
//! Unsafe here: pushing the poll of the descriptor.
#![allow(unsafe_code)]

use std::task::Waker;

use io_uring::{opcode, types};

use super::DriverError;
use super::ids::Tag;
use super::submitter::Submitter;
use crate::sync::Arc;
use crate::uring::EventFd;

/// An event descriptor, and the waker that signals it.
//
// The waker keeps the descriptor open, so a wake after the driver's end writes to no other file.
pub(super) struct Wakeup {
    event_fd: Arc<EventFd>,
    waker: Waker,
    /// The ring polls the descriptor.
    polled: bool,
    /// The program has the waker too, so the descriptor is polled always.
    shared: bool,
    /// The wakes that arrived.
    pub(super) wakes: u64,
}

impl Wakeup {
    /// Makes the descriptor of a driver whose ring has `entries`.
    pub(super) fn new(entries: u32) -> Result<Wakeup, DriverError> {
        let event_fd = EventFd::new().map_err(|error| {
            DriverError::no_room_or("making an event descriptor", &error, entries)
        })?;
        let event_fd = Arc::new(event_fd);
        let waker = Waker::from(Arc::clone(&event_fd));
        Ok(Wakeup { event_fd, waker, polled: false, shared: false, wakes: 0 })
    }

    /// Returns the waker for a wait of the driver's own, which polls the descriptor meanwhile.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns a waker for the program, which may use it at any time.
    pub(super) fn share(&mut self) -> Waker {
        self.shared = true;
        self.waker.clone()
    }

    /// Has the ring poll the descriptor if the program has the waker.
    #[inline]
    pub(super) fn poll_if_shared(&mut self, submitter: &mut Submitter) -> Result<(), DriverError> {
        if self.shared { self.poll(submitter) } else { Ok(()) }
    }

    /// Has the ring poll the descriptor.
    pub(super) fn poll(&mut self, submitter: &mut Submitter) -> Result<(), DriverError> {
        if !self.polled {
            let fd = types::Fd(self.event_fd.raw());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            // SAFETY: the entry refers to no memory, and the descriptor lives as long as the ring.
            unsafe { submitter.push(Tag::WAKEUP, entry) }?;
            self.polled = true;
        }
        Ok(())
    }

    /// Notes that the poll completed.
    pub(super) fn on_completion(&mut self) {
        self.wakes += 1;
        self.polled = false;
        self.event_fd.clear();
    }
}
