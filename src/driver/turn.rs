//! The turns of a driver: from what is to be done into the kernel, and from completions to events;
//! and the end, when nothing is in flight any more.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::task::Waker;
use std::time::{Duration, Instant};

use io_uring::cqueue;

use super::arenas::Arenas;
use super::ids::{Tag, Target};
use super::rings::Rings;
use super::submitter::Wait;
use super::timers::Due;
use super::transfer::{Found, Transfers, drop_memory};
use super::{Driver, DriverError, Event, SocketId};
use crate::buffer::ArenaBytes;
use crate::uring::{FromSlot, QuickClose};

/// The time that dropping a driver waits for the kernel. Cancelled sockets take microseconds; only
/// a device that does not answer takes longer, and then its slots are quarantined.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// The time that dropping a driver waits for the notifications of zero-copy sends, when nothing
/// else is in flight. The kernel of a peer acknowledges within 40 ms, at most 200.
const DROP_NOTIFICATION_TIMEOUT: Duration = Duration::from_millis(250);

/// The cancellations pushed before their completions are taken, so that these fit in their queue.
const CANCELS_AT_ONCE: usize = 64;

/// The times after which draining cancels anew, for operations that a cancellation overtook: the
/// first one, from which on they double, and the longest one.
const ROUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The time after which an operation whose time is over is cancelled anew: a worker thread of the
/// kernel that a cancellation met just before it slept sleeps on.
pub(super) const CANCEL_AGAIN: Duration = Duration::from_millis(20);

/// The end of a drain's waiting.
#[derive(Clone, Copy)]
enum Limit {
    At(Wait),
    /// The driver is being dropped since this moment.
    Drop(Instant),
}

/// The report of [`Driver::drain`].
///
/// ```
/// # use std::time::Duration;
/// # use uring_arena::Driver;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
/// let report = driver.drain(Duration::from_secs(5))?;
/// if report.in_flight > 0 {
///     eprintln!("the kernel keeps {} operations", report.in_flight);
/// }
/// assert_eq!((report.receives_in_flight, report.transfers_in_flight), (0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// The sockets that were closed.
    pub closed: usize,
    /// The bytes that came in and were not taken.
    pub discarded_bytes: u64,
    /// The slots that the kernel used up and reported in no completion. They are free again, now
    /// that no receive of their ring is in flight.
    pub unreported_slots: u64,
    /// The operations that the kernel still has: none if all is well.
    pub in_flight: usize,
    /// The receives and accepts among them.
    pub receives_in_flight: usize,
    /// The reads, writes and sends among them.
    pub transfers_in_flight: usize,
    /// The buffer rings whose slots are not free, because such a receive may write to them. They
    /// are free with its last completion. The slots of every other ring are free.
    pub rings_left: usize,
    /// The slots that are lost if these operations never end: those of the rings left, and those of
    /// each read, write or send. They and their arena's memory are then never freed.
    pub quarantined: usize,
    /// The tokens of the [entries of the program's](Driver::push) that the kernel still has. The
    /// program keeps the memory that they name for ever, or drains again.
    pub tokens_left: Vec<u64>,
}

/// Turns.
impl Driver {
    /// Submits what is pending, and waits until something happened. Returns at once if there are
    /// events to take.
    ///
    /// It may return without an event: a program takes events until there are none, and waits
    /// again. While every slot is in use the sockets wait with it, and it goes on when a slot is
    /// freed. A thread that itself holds all of the slots must not wait.
    ///
    /// A signal whose handler runs meanwhile does not end the wait, with or without `SA_RESTART`. A
    /// handler ends it by a [waker](Self::waker).
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses to go on.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut sender, socket) = std::os::unix::net::UnixStream::pair()?;
    /// # driver.receive(ring, socket)?;
    /// # drop(sender);
    /// 'receiving: loop {
    ///     driver.wait()?;
    ///     while let Some(event) = driver.next() {
    ///         if let Event::Closed { .. } = event {
    ///             break 'receiving;
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&mut self) -> Result<(), DriverError> {
        self.turn(Wait::Forever)
    }

    /// Waits as [`wait`](Self::wait) does, but not longer than `timeout` ([`Duration::ZERO`]: only
    /// looks; [`Duration::MAX`]: without end). Returns `true` if something happened, and `false`
    /// only when the time is over.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// assert!(!driver.wait_timeout(Duration::from_millis(1))?, "nothing is under way");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool, DriverError> {
        self.turn(if timeout.is_zero() { Wait::Never } else { Wait::timeout(timeout) })?;
        Ok(self.has_events())
    }

    /// Takes the next event, and waits for it if there is none: one loop in place of two.
    ///
    /// A [waker](Self::waker) ends the wait too, with [`Event::Woken`](crate::Event::Woken).
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// ```
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut peer, socket) = std::os::unix::net::UnixStream::pair()?;
    /// # std::io::Write::write_all(&mut peer, b"hello")?;
    /// # driver.receive(ring, socket)?;
    /// # drop(peer);
    /// loop {
    ///     match driver.wait_event()? {
    ///         Event::Received { id, bytes, .. } => drop(driver.send(id, bytes)?),
    ///         Event::Closed { .. } => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_event(&mut self) -> Result<Event, DriverError> {
        loop {
            if let Some(event) = self.next() {
                return Ok(event);
            }
            if self.wakeup.told_wakes != self.wakeup.program_wakes {
                self.wakeup.told_wakes = self.wakeup.program_wakes;
                return Ok(Event::Woken);
            }
            self.wait()?;
        }
    }

    /// Does what [`wait`](Self::wait) does, but never waits: for a loop that waits for something
    /// else, and learns from [`register_eventfd`](Self::register_eventfd) when to look.
    ///
    /// Returns `true` if something happened, or more is to be done at once: then the loop takes the
    /// events, and looks again.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// while driver.poll_now()? || !driver.is_idle() {
    ///     while let Some(event) = driver.next() {
    ///         println!("{event:?}");
    ///     }
    /// }
    /// // From here on the registered eventfd says when to look.
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_now(&mut self) -> Result<bool, DriverError> {
        let is_unfinished = self.prepare()?;
        self.submitter.enter(Wait::Never)?;
        Ok(is_unfinished || self.has_events())
    }

    /// Has the kernel signal an event descriptor
    /// ([eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html)) whenever
    /// [`poll_now`](Self::poll_now) would find something: to be polled by another loop.
    ///
    /// A driver has one at a time: another one takes its place. It is signalled at once, because
    /// the kernel does not tell of what happened before. The driver keeps a duplicate until it is
    /// [unregistered](Self::unregister_eventfd).
    ///
    /// **Never poll the ring's own descriptor** in its place, be it with poll(2), epoll(7) or
    /// another ring. The kernel defers completions until the driver enters it. It wakes no poller
    /// of the ring for what it defers: the loop would sleep for ever.
    ///
    /// The driver may itself read event descriptors of the program. Their signals reach the
    /// registered one some milliseconds later (Linux 6.18).
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if it is not an event descriptor, or no descriptor is left for the
    /// duplicate. The one before stays then.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
    ///
    /// let event_fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    /// driver.register_eventfd(&event_fd)?;
    /// let waker = driver.waker()?;
    /// std::thread::spawn(move || waker.wake());
    /// while driver.metrics().wakeups == 0 {
    ///     // The loop of the program sleeps here. It clears the descriptor, then looks.
    ///     poll(&mut [PollFd::new(&event_fd, PollFlags::IN)], None)?;
    ///     rustix::io::read(&event_fd, &mut [0; 8])?;
    ///     while driver.poll_now()? || !driver.is_idle() {
    ///         while let Some(event) = driver.next() {
    ///             println!("{event:?}");
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_eventfd(&mut self, event_fd: impl AsFd) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.wakeup.register(event_fd.as_fd(), &self.submitter)
    }

    /// Has the kernel signal no event descriptor any more. Does nothing if there is none.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let event_fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    /// driver.register_eventfd(&event_fd)?;
    /// // From here on this thread waits in the driver itself.
    /// driver.unregister_eventfd()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unregister_eventfd(&mut self) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.wakeup.unregister(&self.submitter).map(drop)
    }

    /// Returns whether nothing is to be submitted, no event to be taken, no starved socket to be
    /// armed, and no work of the kernel's to be run.
    ///
    /// If so, the next thing that happens [signals](Self::register_eventfd) the event descriptor.
    /// If not, the loop looks again.
    pub fn is_idle(&mut self) -> bool {
        if !self.submitter.is_ours() {
            return true;
        }
        self.rings.are_settled()
            && !self.wakeup.is_turn_due()
            && self.sockets.to_rearm.is_empty()
            && self.transfers.to_rearm.is_empty()
            && self.submitter.uring.submission().is_empty()
            && !self.submitter.has_deferred_work()
            && !self.has_events()
    }

    /// Returns a waker that makes [`wait`](Self::wait) return, from any thread.
    ///
    /// Each wake also signals the [registered](Self::register_eventfd) event descriptor. A signal
    /// handler may call [`Waker::wake_by_ref`], which is one call of write(2).
    ///
    /// # Errors
    ///
    /// None today: the descriptor that the waker signals is made with the driver.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let waker = driver.waker()?;
    /// std::thread::spawn(move || waker.wake());
    /// driver.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn waker(&mut self) -> Result<Waker, DriverError> {
        Ok(self.wakeup.share())
    }

    // Always: a wait without end is the most frequent, and asks for nothing of the other kinds.
    #[inline(always)]
    fn turn(&mut self, wait: Wait) -> Result<(), DriverError> {
        while self.turn_once(wait)? && self.goes_on(wait) {}
        Ok(())
    }

    /// Does one round. Returns `true` if another one may be needed before the wait is over.
    #[inline(always)] // as `turn`
    fn turn_once(&mut self, wait: Wait) -> Result<bool, DriverError> {
        let is_unfinished = self.prepare()?;
        // Sockets that could be armed and are not yet wait for no event: look, and go on arming.
        let only_look = is_unfinished || self.has_events();
        let may_be_early = self.submitter.enter(if only_look { Wait::Never } else { wait })?;
        Ok(is_unfinished || may_be_early)
    }

    #[inline(never)]
    fn goes_on(&mut self, wait: Wait) -> bool {
        !self.has_events() && !wait.is_over()
    }

    /// Arms again what ended, publishes freed slots, and goes on with starved sockets. Returns
    /// `true` if more of these can be armed once the kernel was entered.
    #[inline(always)]
    fn prepare(&mut self) -> Result<bool, DriverError> {
        self.submitter.check_process()?;
        if self.wakeup.acts() {
            self.act_on_wakeup()?;
        }
        if !self.sockets.to_rearm.is_empty() {
            self.sockets.rearm(&mut self.rings, &mut self.submitter)?;
        }
        if !self.transfers.to_rearm.is_empty() {
            self.transfers.rearm(&mut self.files, &self.arenas, &mut self.submitter)?;
        }
        self.sockets.refill_and_rearm(&mut self.rings, &mut self.wakeup, &mut self.submitter)
    }

    /// Does what a wake asks for: the pipe is polled again, and the rings are looked at.
    #[inline(never)]
    fn act_on_wakeup(&mut self) -> Result<(), DriverError> {
        self.wakeup.act(&mut self.submitter)?;
        if self.wakeup.take_look() {
            self.sockets.look_at_rings(&mut self.rings, &mut self.submitter)?;
        }
        if self.wakeup.take_timers() {
            self.act_on_timers()?;
        }
        Ok(())
    }

    /// Ends what is due, and starts the ring's timer for what is due next.
    fn act_on_timers(&mut self) -> Result<(), DriverError> {
        let now = Instant::now();
        while let Some((at, due)) = self.timers.next_due(now) {
            if let Err(error) = self.end_due(at, due) {
                // It is due still: the next turn tries again.
                self.timers.push(at, due);
                self.wakeup.request_timers();
                return Err(error);
            }
        }
        self.timers.start(&mut self.submitter)
    }

    fn end_due(&mut self, at: Instant, due: Due) -> Result<(), DriverError> {
        match due {
            Due::Timer(key) => {
                if let Some((id, token)) = self.timers.take(key) {
                    self.sockets.tell_of_timer(id, token);
                }
            }
            Due::Operation(key) if self.transfers.has_deadline(key, at) => {
                let again = Instant::now() + CANCEL_AGAIN;
                self.transfers.expire(key, again, &mut self.files, &mut self.submitter)?;
                if self.transfers.is_in_flight(key) {
                    self.timers.push(again, due);
                }
            }
            Due::Connection(key) if self.sockets.has_connect_deadline(key, at) => {
                let again = Instant::now() + CANCEL_AGAIN;
                self.sockets.expire_connect(key, again, &mut self.submitter)?;
                self.timers.push(again, due);
            }
            Due::Silence(key) => match self.sockets.take_activity(key) {
                Some(is_active) if self.timers.looked(key, at, is_active) => {
                    self.sockets.tell_of_silence(key);
                }
                Some(_) => {}
                None => self.timers.watch(key, None),
            },
            Due::Operation(_) | Due::Connection(_) => {}
        }
        Ok(())
    }

    /// Returns whether `next` would find something.
    fn has_events(&mut self) -> bool {
        self.sockets.has_events() || self.transfers.has_events() || self.submitter.has_completions()
    }
}

/// Events.
impl Driver {
    /// Takes the next event. Returns `None` if there is none: then it is time to
    /// [`wait`](Self::wait) again.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would borrow the driver while the program uses it"
    )]
    #[inline(never)]
    pub fn next(&mut self) -> Option<Event> {
        self.next_as()
    }

    /// Takes the next event as [`next`](Self::next) does, with bytes that allocate nothing on the
    /// heap.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{ArenaBytes, BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut sender, socket) = std::os::unix::net::UnixStream::pair()?;
    /// # driver.receive(ring, socket)?;
    /// sender.write_all(b"hello")?;
    /// driver.wait()?;
    /// let Some(Event::Received { bytes, .. }) = driver.next_arena_bytes() else { panic!() };
    /// let bytes: ArenaBytes = bytes;
    /// assert_eq!(&bytes[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_arena_bytes(&mut self) -> Option<Event<ArenaBytes>> {
        self.next_as()
    }

    fn next_as<B: FromSlot>(&mut self) -> Option<Event<B>> {
        loop {
            if self.sockets.current_completion.is_some() {
                match self.next_of_current() {
                    ControlFlow::Break(event) => return event,
                    ControlFlow::Continue(()) => continue,
                }
            }
            let Some(completion) = self.submitter.next_completion() else {
                return self.next_pending();
            };
            self.completions += 1;
            let tag = Tag::from_user_data(completion.user_data());
            if let Some((token, bytes)) = self.sockets.take_fast(tag, &mut self.rings, &completion)
            {
                let id = SocketId::new(self.number, tag.socket_key());
                return Some(Event::Received { id, token, bytes: B::arrived(bytes) });
            }
            let event = self.complete(tag, &completion);
            if event.is_some() {
                return event;
            }
        }
    }

    /// Takes the next event of the completion whose bytes are being handed out.
    #[inline(never)]
    fn next_of_current<B: FromSlot>(&mut self) -> ControlFlow<Option<Event<B>>> {
        if !self.submitter.is_ours() {
            return ControlFlow::Break(None);
        }
        match self.sockets.next_of_current(&mut self.rings) {
            None => ControlFlow::Continue(()),
            event => ControlFlow::Break(event),
        }
    }

    /// Takes the next event that no completion brings.
    #[inline(never)]
    fn next_pending<B>(&mut self) -> Option<Event<B>> {
        if !self.submitter.is_ours() {
            return None;
        }
        let Driver { sockets, transfers, rings, files, timers, submitter, .. } = self;
        loop {
            match transfers.next_event(files, submitter) {
                Some(Found::Event(event)) => return Some(event),
                Some(Found::SendingEnded(socket, error)) => {
                    if let Some(event) = sockets.sending_ended(socket, error, rings) {
                        return Some(event);
                    }
                }
                None => {
                    let event = sockets.next_event(rings, files, transfers, submitter);
                    if let Some(Event::Timer { id, .. }) = event {
                        timers.forget(id);
                    }
                    // The end of a socket may have ended its sending direction.
                    if event.is_some() || !transfers.has_events() {
                        return event;
                    }
                }
            }
        }
    }

    /// Acts on a completion that is not a message like most.
    #[inline(never)]
    fn complete<B: FromSlot>(&mut self, tag: Tag, completion: &cqueue::Entry) -> Option<Event<B>> {
        match tag.target() {
            Target::Socket(key) if self.sockets.is_in_flight(key) => {
                self.sockets.complete(key, &mut self.rings, completion)
            }
            Target::Transfer(key) if self.transfers.is_in_flight(key) => {
                self.transfers.complete(key, completion, &mut self.files, &self.submitter)
            }
            Target::Wakeup => {
                self.wakeup.on_completion();
                None
            }
            Target::LookSoon | Target::LookLater => {
                self.sockets.looks.on_completion(tag);
                self.wakeup.request_look();
                None
            }
            Target::Deadlines => {
                self.timers.on_completion();
                self.wakeup.request_timers();
                None
            }
            Target::Retry => {
                self.sockets.back_off.timer.on_completion();
                self.sockets.retry();
                None
            }
            Target::Cancel => None,
            Target::Socket(_) | Target::Transfer(_) | Target::Unknown => {
                self.unknown_completions += 1;
                None
            }
        }
    }
}

/// The end.
impl Driver {
    /// Ends everything in good order, and waits for the kernel not longer than `timeout`.
    ///
    /// It cancels what is under way and waits until the kernel has let go of all of it. Then it
    /// unregisters buffer rings and arenas, and closes the sockets. Events that were not taken are
    /// dropped. Files stay open. [`Duration::ZERO`] cancels everything once and waits for nothing;
    /// with [`Duration::MAX`] there is no end to the waiting.
    ///
    /// Operations that the kernel still has by then stay, with their own memory and the buffer
    /// rings that they receive into; the report counts them. The program drains again, or drops the
    /// driver, which quarantines that memory and no other. What stays is a device that does not
    /// answer, or a zero-copy send whose peer does not read: [`abort_file`](Self::abort_file) ends
    /// the latter.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses to go on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let drained = driver.drain(Duration::from_secs(5))?;
    /// assert_eq!((drained.in_flight, drained.quarantined), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&mut self, timeout: Duration) -> Result<DrainReport, DriverError> {
        self.submitter.check_process()?;
        let mut report = DrainReport::default();
        let answer = self.end_operations(Limit::At(Wait::timeout(timeout)), &mut report);
        self.unregister_all(&mut report);
        tracing::debug!(
            closed = report.closed,
            discarded_bytes = report.discarded_bytes,
            in_flight = report.in_flight,
            quarantined = report.quarantined,
            "a driver was drained; what is in flight ends with its device or peer: drain again"
        );
        answer.map(|()| report)
    }

    /// Unregisters buffer rings and arenas, and reports what is left.
    fn unregister_all(&mut self, report: &mut DrainReport) {
        let before = self.metrics().unreported_slots;
        self.rings.unregister_all(&self.submitter);
        self.arenas.unregister_all(&self.submitter);
        let metrics = self.metrics();
        report.unreported_slots = metrics.unreported_slots - before;
        report.receives_in_flight = self.sockets.in_flight;
        report.transfers_in_flight = self.transfers.in_flight;
        report.in_flight = metrics.in_flight;
        report.rings_left = self.rings.len();
        report.quarantined = metrics.published + self.transfers.slots_running();
        report.tokens_left = self.transfers.tokens_left();
    }

    fn end_operations(
        &mut self,
        limit: Limit,
        report: &mut DrainReport,
    ) -> Result<(), DriverError> {
        self.timers.clear();
        self.discard_events(report);
        self.contained_panics += self.transfers.cancel_all(&mut self.files, &self.submitter);
        report.closed += self.sockets.close_all(&mut self.rings);
        // Sockets whose sending directions end now.
        self.discard_events(report);
        let (mut round, longest) = ROUNDS;
        while self.in_flight() > 0 {
            self.cancel_in_flight(report)?;
            if self.reap_until(Instant::now() + round, limit, report)? {
                return Ok(());
            }
            round = longest.min(round * 2);
        }
        Ok(())
    }

    /// Takes completions until nothing is in flight, or until it is time to cancel anew. Returns
    /// `true` if there is no more time.
    fn reap_until(
        &mut self,
        cancel_at: Instant,
        limit: Limit,
        report: &mut DrainReport,
    ) -> Result<bool, DriverError> {
        while self.in_flight() > 0 {
            let before = self.completions;
            let limit = self.limit(limit);
            let until = match limit {
                Wait::Until(limit) => limit.min(cancel_at),
                Wait::Never | Wait::Forever => cancel_at,
            };
            // Looks even if the time is over.
            self.submitter.enter(Wait::Until(until))?;
            self.discard_events(report);
            let now = Instant::now();
            // The completions that are there are taken in any case: each operation was cancelled.
            if now < until || self.completions != before {
                continue;
            }
            return Ok(matches!(limit, Wait::Until(limit) if now >= limit));
        }
        Ok(false)
    }

    /// Returns how long a drain may wait from now on.
    fn limit(&self, limit: Limit) -> Wait {
        match limit {
            Limit::At(wait) => wait,
            Limit::Drop(since) => {
                let can_end =
                    self.sockets.in_flight > 0 || self.transfers.tags_to_cancel().next().is_some();
                // A peer that does not read is not waited for.
                Wait::Until(match can_end {
                    true => since + DROP_TIMEOUT,
                    false if self.transfers.await_notifications(&self.files) => {
                        since + DROP_NOTIFICATION_TIMEOUT
                    }
                    false => since,
                })
            }
        }
    }

    /// Drops a forked child's copy of the driver: closes its descriptors, which the parent has too,
    /// and changes nothing of what they stand for.
    ///
    /// Everything else is leaked. Its locks may be held by threads that the child does not have,
    /// and its memory may be the program's to drop.
    fn leave_to_parent(&mut self) {
        let number = self.number;
        self.sockets.close_copies();
        self.files.close_copies();
        std::mem::forget(std::mem::replace(&mut self.rings, Rings::new(number)));
        std::mem::forget(std::mem::replace(&mut self.arenas, Arenas::new(number, None)));
        std::mem::forget(std::mem::replace(&mut self.transfers, Transfers::new(number)));
    }

    fn discard_events(&mut self, report: &mut DrainReport) {
        while let Some(event) = self.next_arena_bytes() {
            match event {
                Event::Received { bytes, .. } => {
                    report.discarded_bytes += bytes.len() as u64;
                    drop_memory(bytes);
                }
                Event::Datagram { datagram, .. } => {
                    report.discarded_bytes += datagram.bytes.len() as u64;
                    drop_memory(datagram.bytes);
                }
                Event::Accepted { socket, .. } => drop(QuickClose::new(socket)),
                Event::Closed { .. } => report.closed += 1,
                Event::Read { buffer, .. } => drop(drop_memory(buffer)),
                Event::ReadVectored { buffers, .. } => drop(drop_memory(buffers)),
                Event::Wrote { payload, .. } | Event::Sent { payload, .. } => {
                    self.contained_panics += u64::from(!drop_memory(payload));
                }
                Event::WroteVectored { pieces, .. } | Event::SentVectored { pieces, .. } => {
                    for piece in pieces {
                        self.contained_panics += u64::from(!drop_memory(piece));
                    }
                }
                Event::FileClosed { .. }
                | Event::AcceptFailed { .. }
                | Event::BufferRingEmpty { .. }
                | Event::Finished { .. }
                | Event::Idle { .. }
                | Event::Connected { .. }
                | Event::Done { .. }
                | Event::Completed { .. }
                | Event::Timer { .. }
                | Event::Woken => {}
            }
        }
    }

    /// Cancels each operation by its tag. One request that cancels "any" would be shorter, but the
    /// kernel then looks for its targets one after another from the start: ten thousand sockets
    /// take it seconds.
    fn cancel_in_flight(&mut self, report: &mut DrainReport) -> Result<(), DriverError> {
        let tags = self.sockets.tags_in_flight().chain(self.transfers.tags_to_cancel());
        let tags: Vec<Tag> = tags.collect();
        for tags in tags.chunks(CANCELS_AT_ONCE) {
            for &tag in tags {
                self.submitter.cancel(tag)?;
            }
            self.submitter.enter(Wait::Never)?;
            self.discard_events(report);
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.submitter.is_ours() {
            return self.leave_to_parent();
        }
        let mut report = DrainReport::default();
        let answer = self.end_operations(Limit::Drop(Instant::now()), &mut report);
        self.unregister_all(&mut report);
        match answer {
            Ok(()) if report.in_flight == 0 => {}
            Ok(()) => tracing::error!(
                in_flight = report.in_flight,
                quarantined = report.quarantined,
                "the driver was dropped before the kernel let go: its slots are quarantined, their memory is leaked"
            ),
            Err(error) => {
                tracing::error!(%error, "the driver could not be drained: its slots are quarantined")
            }
        }
        self.files.close_all(&self.submitter);
        // Rings and operations that are left quarantine their slots in their own drop.
        self.transfers.discard_all();
    }
}
