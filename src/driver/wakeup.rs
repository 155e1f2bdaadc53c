//! The pipe that wakes a driver which waits in the kernel, for slots that were granted to its rings
//! and for the wakers that `Driver::waker` gave out; and the event descriptor that tells another
//! loop of the driver's completions.
//!
//! # Safety
//!
//! Unsafe here: pushing the poll of the pipe.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::Waker;

use io_uring::{opcode, types};

use super::DriverError;
use super::ids::Tag;
use super::submitter::Submitter;
use crate::sync::Arc;
use crate::uring::{EventFd, GrantPipe, PressurePipe, WakePipe};

/// A pipe with the waker that signals it, and the registered event descriptor.
//
// The waker keeps the pipe open, so a wake after the driver's end writes to no other file.
pub(super) struct Wakeup {
    pipe: Arc<WakePipe>,
    /// The waker of the program.
    waker: Waker,
    /// The waker of the rings that wait for a slot.
    grant_waker: Waker,
    /// The waker that tells that somebody waits for a slot.
    pressure_waker: Waker,
    /// The ring polls the pipe.
    polled: bool,
    /// The program, or a watch on an arena, has a waker, so the pipe is polled always.
    shared: bool,
    /// Rings are to be looked at: somebody may wait for the slots of one that is idle.
    look_due: bool,
    /// The timers are to be looked at.
    timers_due: bool,
    /// A duplicate of the event descriptor that the kernel signals.
    registered: Option<EventFd>,
    /// The driver reads event descriptors of the program.
    reads_event_fds: bool,
    /// The next turn has something to do here. Beside the others, so that a turn asks one question.
    acts_each_turn: bool,
    /// The wakes that arrived.
    pub(super) wakes: u64,
    /// The wakes among them by wakers of the program, and those of these that it was told of.
    pub(super) program_wakes: u64,
    pub(super) told_wakes: u64,
}

impl Wakeup {
    /// Makes the pipe of a driver whose ring has `entries`.
    pub(super) fn new(entries: u32) -> Result<Wakeup, DriverError> {
        let pipe = WakePipe::new()
            .map_err(|error| DriverError::no_room_or("making a pipe", &error, entries))?;
        let pipe = Arc::new(pipe);
        let waker = Waker::from(Arc::clone(&pipe));
        let grant_waker = Waker::from(Arc::new(GrantPipe(Arc::clone(&pipe))));
        let pressure_waker = Waker::from(Arc::new(PressurePipe(Arc::clone(&pipe))));
        Ok(Wakeup {
            pipe,
            waker,
            grant_waker,
            pressure_waker,
            polled: false,
            shared: false,
            look_due: false,
            timers_due: false,
            registered: None,
            reads_event_fds: false,
            acts_each_turn: false,
            wakes: 0,
            program_wakes: 0,
            told_wakes: 0,
        })
    }

    /// Returns the waker for the rings, which wait for slots; the pipe is polled meanwhile.
    pub(super) fn grant_waker(&self) -> &Waker {
        &self.grant_waker
    }

    /// Returns a waker for the program, which may use it at any time.
    pub(super) fn share(&mut self) -> Waker {
        self.shared = true;
        self.update();
        self.waker.clone()
    }

    /// Returns a waker for watches on arenas: it has the rings looked at.
    pub(super) fn share_with_watch(&mut self) -> &Waker {
        self.shared = true;
        self.update();
        &self.pressure_waker
    }

    /// Has the rings looked at with the next turn.
    pub(super) fn request_look(&mut self) {
        self.look_due = true;
        self.update();
    }

    /// Returns whether the next turn is to come without a wake: the rings are to be looked at, or
    /// nobody would learn of a wake before, because the pipe is not polled.
    pub(super) fn is_turn_due(&self) -> bool {
        self.look_due || self.timers_due || (self.shared && !self.polled)
    }

    /// Returns whether the rings are to be looked at now.
    pub(super) fn take_look(&mut self) -> bool {
        let is_due = std::mem::take(&mut self.look_due);
        self.update();
        is_due
    }

    /// Has the timers looked at with the next turn.
    pub(super) fn request_timers(&mut self) {
        self.timers_due = true;
        self.update();
    }

    /// Returns whether the timers are to be looked at now.
    pub(super) fn take_timers(&mut self) -> bool {
        let is_due = std::mem::take(&mut self.timers_due);
        self.update();
        is_due
    }

    /// Notes that the driver reads an event descriptor of the program.
    pub(super) fn note_event_fd(&mut self) {
        self.reads_event_fds = true;
        self.update();
    }

    fn update(&mut self) {
        let renews = self.reads_event_fds && self.registered.is_some();
        self.acts_each_turn = self.is_turn_due() || renews;
    }

    /// Returns whether this turn has something to do here.
    #[inline]
    pub(super) fn acts(&self) -> bool {
        self.acts_each_turn
    }

    /// Has the ring poll the pipe if the program has the waker, and renews the registration.
    ///
    /// A write to an event descriptor that the ring reads completes the read within the write.
    /// There the kernel signals the registered one once in the life of a registration only (Linux
    /// 6.18). With one registration a turn that is enough: the loop that is told once looks.
    pub(super) fn act(&mut self, submitter: &mut Submitter) -> Result<(), DriverError> {
        if self.reads_event_fds
            && let Some(event_fd) = &self.registered
        {
            // Before the kernel is entered: what completes between the two calls is seen then.
            let uring = submitter.uring.submitter();
            // Fails only if a renewal failed before.
            let _ = uring.unregister_eventfd();
            uring.register_eventfd(event_fd.as_raw_fd()).map_err(not_registered)?;
        }
        if self.shared { self.poll(submitter) } else { Ok(()) }
    }

    /// Has the ring poll the pipe.
    pub(super) fn poll(&mut self, submitter: &mut Submitter) -> Result<(), DriverError> {
        if !self.polled {
            let fd = types::Fd(self.pipe.reader());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            // SAFETY: the entry refers to no memory, and the descriptor lives as long as the ring.
            unsafe { submitter.push(Tag::WAKEUP, entry) }?;
            self.polled = true;
            self.update();
        }
        Ok(())
    }

    /// Notes that the poll completed.
    pub(super) fn on_completion(&mut self) {
        let signals = self.pipe.clear();
        self.wakes += u64::from(signals.is_woken || signals.is_granted);
        self.program_wakes += u64::from(signals.is_woken);
        self.look_due |= signals.is_pressed;
        self.polled = false;
        self.update();
    }

    /// Has the kernel signal `event_fd` from now on, in place of any other. If the kernel refuses
    /// it, the one before stays.
    pub(super) fn register(
        &mut self,
        event_fd: BorrowedFd<'_>,
        submitter: &Submitter,
    ) -> Result<(), DriverError> {
        let new = event_fd
            .try_clone_to_owned()
            .map(EventFd::from)
            .map_err(|error| DriverError::system("duplicating an event descriptor", &error))?;
        let before = self.unregister(submitter)?;
        let uring = submitter.uring.submitter();
        let answer = uring.register_eventfd(new.as_raw_fd()).map_err(not_registered);
        self.registered = match &answer {
            Ok(()) => Some(new),
            Err(_) => before,
        };
        self.update();
        let Some(registered) = &self.registered else { return answer };
        if answer.is_err() {
            uring.register_eventfd(registered.as_raw_fd()).map_err(not_registered)?;
        }
        // The kernel tells of nothing that happened before.
        registered.signal();
        answer
    }

    /// Has the kernel signal no event descriptor any more. Returns the one that it signalled.
    pub(super) fn unregister(
        &mut self,
        submitter: &Submitter,
    ) -> Result<Option<EventFd>, DriverError> {
        if self.registered.is_some() {
            match submitter.uring.submitter().unregister_eventfd() {
                // A renewal failed before.
                Err(error) if error.raw_os_error() != Some(libc::ENXIO) => {
                    return Err(DriverError::system("unregistering an event descriptor", &error));
                }
                _ => {}
            }
        }
        let before = self.registered.take();
        self.update();
        Ok(before)
    }
}

fn not_registered(error: std::io::Error) -> DriverError {
    DriverError::system("registering an event descriptor", &error)
}
