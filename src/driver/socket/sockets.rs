//! The sockets of a driver: opened, armed, paused and closed.
//!
//! # Safety
//!
//! Unsafe here: pushing receives and accepts. The table owns the socket until the final completion,
//! and the memory is the buffer ring's, which stays while it has sockets.
#![allow(unsafe_code)]

use super::socket::{
    ACTIVE, AfterFailure, Connecting, CurrentCompletion, Phase, SERVED, Socket, Source, Wanted,
    connection_number,
};
use crate::driver::files::Files;
use crate::driver::ids::Tag;
use crate::driver::rings::{IDLE_AFTER, Look, REFUSALS_APART, Ring, Rings};
use crate::driver::submitter::{Submitter, Timer};
use crate::driver::transfer::Transfers;
use crate::driver::wakeup::Wakeup;
use crate::driver::{
    BufferRingId, DriverError, Event, SocketError, SocketId, SocketSnapshot, TimerId,
};
use crate::slab::{Key, Slab};
use crate::uring::{Feature, Probe, QuickClose, Status};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// The sockets of one driver.
//
// Invariants: 1. Every receive and accept that the kernel has is of a socket in the table that is
// in flight, and the other way round; `in_flight` counts them. 2. A socket leaves the table only
// when it is not in flight, and with its `Closed` event.
pub(crate) struct Sockets {
    pub(super) driver: u32,
    pub(super) table: Slab<Socket>,
    pub(crate) in_flight: usize,
    /// Sockets that are armed on the next turn, so that one whose operation ends at once cannot
    /// keep this turn from ending.
    pub(crate) to_rearm: VecDeque<Key>,
    /// The sockets that are being connected.
    pub(super) connecting: HashMap<Key, Connecting>,
    /// The errors of connections whose messages are still received, or whose sending directions are
    /// still to end: their ends tell them.
    pub(super) end_errors: HashMap<Key, i32>,
    /// Events that no completion brings.
    pub(super) pending_events: VecDeque<PendingEvent>,
    pub(crate) back_off: BackOff,
    pub(crate) looks: Looks,
    /// The completion whose bytes are being handed out.
    pub(crate) current_completion: Option<CurrentCompletion>,
    /// The forms of operations that are tried. A form that the kernel then refuses gives way to an
    /// older one.
    supported: Probe,
    /// Operations bring many completions where the kernel can.
    multishot: bool,
    /// The operations armed: first ones and further ones.
    pub(crate) armed: u64,
}

/// An event that no completion brings.
pub(super) enum PendingEvent {
    /// The socket is closed, with an error number or without.
    Closed(Key, Option<i32>),
    /// A listener failed with an error number, and tries again.
    AcceptFailed(Key, i32),
    /// A buffer ring has no slot.
    BufferRingEmpty(BufferRingId),
    /// A socket's connection is made: what its sending direction has to send may go.
    Connected(Key),
    /// The sending direction of a socket is to end: at once if there was an error.
    EndSending(Key, bool),
    /// Nothing came for as long as the socket's idle timeout.
    Idle(Key),
    /// The time of a timer is over.
    Timer(TimerId, u64),
}

/// The timers after which the rings are looked at.
pub(crate) struct Looks {
    soon: Timer,
    later: Timer,
    /// The next look renews the watches that wakes have used up.
    renews: bool,
}

impl Looks {
    fn new() -> Looks {
        let (soon, later) = (Timer::new(Tag::LOOK_SOON), Timer::new(Tag::LOOK_LATER));
        Looks { soon, later, renews: false }
    }

    /// Notes the completion of a timer.
    pub(crate) fn on_completion(&mut self, tag: Tag) {
        if tag == Tag::LOOK_SOON { &mut self.soon } else { &mut self.later }.on_completion();
        self.renews = true;
    }

    /// Has the rings looked at again.
    fn request(&mut self, look: Look, submitter: &mut Submitter) -> Result<(), DriverError> {
        match look {
            Look::Calm => Ok(()),
            Look::Soon | Look::Idle => self.soon.start(IDLE_AFTER, submitter),
            Look::Later => self.later.start(REFUSALS_APART, submitter),
        }
    }
}

/// The least and the most time between two tries of sockets that failed for a lack of the system's.
const DELAY_MIN: Duration = Duration::from_millis(1);
const DELAY_MAX: Duration = Duration::from_millis(100);

/// The failures of accepts, one after the other, after which the next try is delayed whatever the
/// error: connections that are aborted before they are accepted do not keep the driver busy.
const FAILURES_AT_ONCE: u32 = 16;

/// The sockets that failed for want of a descriptor or of memory, and try again after some time.
pub(crate) struct BackOff {
    /// Sockets in the phase `Delayed`, and some that are not any more.
    waiting: Vec<Key>,
    /// Listeners whose failure was told, and that have accepted nothing since.
    told: Vec<Key>,
    /// The failures of accepts since the last success.
    failures: u32,
    /// The time until the next try: twice as long after each in vain.
    delay: Duration,
    pub(crate) timer: Timer,
    /// The failures that were followed by a try, or will be.
    pub(crate) retries: u64,
}

impl BackOff {
    fn new() -> BackOff {
        BackOff {
            waiting: Vec::new(),
            told: Vec::new(),
            failures: 0,
            delay: DELAY_MIN,
            timer: Timer::new(Tag::RETRY),
            retries: 0,
        }
    }

    /// Starts the timer for a socket.
    fn wait(&mut self, key: Key, submitter: &mut Submitter) -> Result<(), DriverError> {
        self.timer.start(self.delay, submitter)?;
        self.waiting.push(key);
        self.delay = (2 * self.delay).min(DELAY_MAX);
        Ok(())
    }

    /// Notes that a listener accepted a connection.
    pub(super) fn note_success(&mut self, key: Key) {
        (self.failures, self.delay) = (0, DELAY_MIN);
        self.told.retain(|&told| told != key);
    }
}

impl Sockets {
    pub(crate) fn new(driver: u32, supported: Probe, multishot: bool) -> Sockets {
        Sockets {
            driver,
            table: Slab::new(Tag::INDICES),
            in_flight: 0,
            to_rearm: VecDeque::new(),
            connecting: HashMap::new(),
            end_errors: HashMap::new(),
            pending_events: VecDeque::new(),
            back_off: BackOff::new(),
            looks: Looks::new(),
            current_completion: None,
            supported,
            multishot,
            armed: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Looks at each socket.
    pub(crate) fn snapshots(&self, rings: &Rings, files: &Files) -> Vec<SocketSnapshot> {
        let snapshot = |(key, socket): (Key, &Socket)| {
            let sending = socket.sending.and_then(|key| files.get(key));
            SocketSnapshot {
                id: SocketId::new(self.driver, key),
                connection: connection_number(socket.token, key),
                group: rings.of(socket.source.ring()).map(|ring| ring.buffers.group()),
                state: socket.state(),
                sends: sending.map_or(0, |file| file.operations.len()),
            }
        };
        self.table.iter().map(snapshot).collect()
    }

    pub(crate) fn is_in_flight(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(Socket::is_in_flight)
    }

    /// Takes a socket in and arms it. If that fails, the descriptor comes back with the reason.
    pub(crate) fn open(
        &mut self,
        fd: OwnedFd,
        source: Source,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<SocketId, SocketError> {
        let can_multishot = self.supported.has(source.multishot());
        // An accept takes no slot: it need not take turns.
        let multishot = can_multishot && (self.multishot || source == Source::Listener);
        let socket = Socket::new(fd, source, multishot);
        let key = self.table.insert(socket).ok().expect("the driver has room");
        let mut ring = rings.of_mut(source.ring());
        if let (Source::Datagrams(_) | Source::Messages(_), Some(ring)) = (source, &mut ring) {
            ring.buffers.forbid_runs();
        }
        if let Err(error) = self.arm(key, ring.as_deref(), submitter) {
            // Nothing was pushed: it goes back as it came.
            let socket = self.table.remove(key).expect("just inserted");
            let fd = Rc::into_inner(socket.fd).expect("nothing was sent");
            return Err(SocketError::new(error, fd.into_inner()));
        }
        if let Some(ring) = &mut ring {
            ring.sockets += 1;
        }
        Ok(SocketId::new(self.driver, key))
    }

    /// Returns whether receives that a feature allows bring many completions.
    pub(super) fn may_multishot(&self, feature: Feature) -> bool {
        self.multishot && self.supported.has(feature)
    }

    /// Arms a socket that is idle or starved, unless it is paused.
    pub(super) fn arm(
        &mut self,
        key: Key,
        ring: Option<&Ring>,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(socket) = self.table.get_mut(key) else { return Ok(()) };
        socket.came &= !SERVED;
        socket.phase = Phase::Idle;
        if socket.wanted != Wanted::Open {
            return Ok(());
        }
        if ring.is_some_and(|ring| !ring.buffers.is_registered()) {
            // SAFETY: the table owns the descriptor; the entry names no memory.
            unsafe { submitter.push(Tag::socket(key), socket.poll_entry()) }?;
            socket.phase = Phase::Polling;
            self.in_flight += 1;
            return Ok(());
        }
        let once = ring.is_some_and(Ring::takes_turns);
        let entry = socket.entry(ring.map(|ring| &ring.buffers), once);
        // SAFETY: the table owns the descriptor, the ring its slots (see the head of this file).
        unsafe { submitter.push(Tag::socket(key), entry) }?;
        socket.phase = Phase::InFlight;
        if let Source::Stream(_) = socket.source {
            socket.fast_generation = key.generation();
        }
        self.armed += 1;
        self.in_flight += 1;
        Ok(())
    }

    /// Arms again what ended since the last turn.
    pub(crate) fn rearm(
        &mut self,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        while let Some(&key) = self.to_rearm.front() {
            match self.table.get(key) {
                Some(socket) if socket.phase == Phase::Idle => {
                    let mut ring = rings.of_mut(socket.source.ring());
                    if !self.queue_if_starved(key, ring.as_deref_mut()) {
                        self.arm(key, ring.as_deref(), submitter)?;
                    }
                }
                Some(socket) if socket.phase == Phase::Delayed => {
                    self.back_off.wait(key, submitter)?;
                }
                _ => {}
            }
            self.to_rearm.pop_front();
        }
        Ok(())
    }

    /// Has a socket that got its turn wait behind those that starve. Returns `false` if there are
    /// none, or the socket is not to be received from.
    fn queue_if_starved(&mut self, key: Key, ring: Option<&mut Ring>) -> bool {
        let (Some(ring), Some(socket)) = (ring, self.table.get_mut(key)) else { return false };
        if !ring.takes_turns() || socket.wanted != Wanted::Open {
            return false;
        }
        if ring.starved.count() == 0 {
            ring.count_turn();
            return false;
        }
        let is_over = socket.ends_turn(ring.buffers.piece_slots());
        socket.phase = Phase::Starved;
        ring.starved.push(key, is_over);
        true
    }

    /// Has a socket that failed for a lack of the system's try again, after some time.
    pub(super) fn delay(&mut self, key: Key) {
        if let Some(socket) = self.table.get_mut(key) {
            socket.phase = Phase::Delayed;
            self.back_off.retries += 1;
            // The next turn starts the timer.
            self.to_rearm.push_back(key);
        }
    }

    /// Has the sockets that wait for something of the system's try again with the next turn.
    pub(crate) fn retry(&mut self) {
        for key in std::mem::take(&mut self.back_off.waiting) {
            if let Some(socket) = self.table.get_mut(key)
                && socket.phase == Phase::Delayed
            {
                socket.phase = Phase::Idle;
                self.to_rearm.push_back(key);
            }
        }
    }

    /// Acts on an accept that failed: the listener goes on, waits, or ends.
    pub(super) fn accept_failed(&mut self, key: Key, errno: i32) {
        let Some(socket) = self.table.get_mut(key) else { return };
        self.back_off.failures += 1;
        let is_one_of_many = self.back_off.failures > FAILURES_AT_ONCE;
        match socket.after_failed_accept(errno) {
            AfterFailure::End => {
                self.pending_events.push_back(PendingEvent::Closed(key, Some(errno)));
            }
            AfterFailure::Again if !is_one_of_many => {
                self.back_off.retries += 1;
                self.to_rearm.push_back(key);
            }
            AfterFailure::Again => self.delay(key),
            AfterFailure::Later => {
                if !self.back_off.told.contains(&key) {
                    self.back_off.told.push(key);
                    self.pending_events.push_back(PendingEvent::AcceptFailed(key, errno));
                }
                self.delay(key);
            }
        }
    }

    /// Publishes the slots that came back, and arms starved sockets on them.
    ///
    /// Returns `true` if slots still lie ready and sockets still wait: they can be armed when the
    /// kernel has tried these.
    #[inline(always)]
    pub(crate) fn refill_and_rearm(
        &mut self,
        rings: &mut Rings,
        wakeup: &mut Wakeup,
        submitter: &mut Submitter,
    ) -> Result<bool, DriverError> {
        let mut is_unfinished = false;
        for ring in rings.iter_mut() {
            if ring.starved.count() == 0 {
                ring.buffers.refill_in_bulk();
            } else {
                is_unfinished |= self.arm_starved(ring, wakeup, submitter)?;
            }
        }
        Ok(is_unfinished)
    }

    /// Arms as many starved sockets as slots lie ready. Returns `true` if there are more of both.
    #[inline(never)]
    fn arm_starved(
        &mut self,
        ring: &mut Ring,
        wakeup: &mut Wakeup,
        submitter: &mut Submitter,
    ) -> Result<bool, DriverError> {
        let ready = ring.refill_or_wait(wakeup, submitter)?;
        if ring.starved.count() > ready {
            ring.take_turns();
        }
        for _ in 0..ready {
            let is_starved =
                |key| self.table.get(key).is_some_and(|socket| socket.phase == Phase::Starved);
            let Some(key) = ring.starved.pop(is_starved) else { break };
            if let Err(error) = self.arm(key, Some(ring), submitter) {
                // Nothing was pushed: the socket keeps its turn.
                if let Some(socket) = self.table.get_mut(key) {
                    socket.phase = Phase::Starved;
                }
                ring.starved.push_front(key);
                return Err(error);
            }
        }
        let mut look = ring.stop_waiting_if_idle();
        if ring.is_delayed {
            look = Look::Later;
        }
        self.looks.request(look, submitter)?;
        Ok(ready > 0 && ring.starved.count() > 0)
    }

    /// Looks at each ring: one that is idle gives its slots back if others wait for slots.
    pub(crate) fn look_at_rings(
        &mut self,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let renews = std::mem::take(&mut self.looks.renews);
        for key in rings.keys() {
            let Some(ring) = rings.of_mut(Some(key)) else { continue };
            ring.is_delayed = false;
            let look = if ring.buffers.is_detached() {
                // A cancellation may have met a receive just before it went on.
                self.cancel_receives(key, submitter)?;
                Look::Later
            } else {
                ring.look(renews)
            };
            if look == Look::Idle {
                self.give_back(key, rings, submitter)?;
            }
            let look = if look == Look::Idle { Look::Later } else { look };
            self.looks.request(look, submitter)?;
        }
        Ok(())
    }

    /// Has an idle ring give its slots back: its group is unregistered, and its receives are
    /// cancelled. Their sockets are polled from then on, and receive when there is something.
    fn give_back(
        &mut self,
        key: Key,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(ring) = rings.of_mut(Some(key)) else { return Ok(()) };
        // Bytes of a receive that has ended may still be on their way to the program.
        let is_of_ring = |current: &CurrentCompletion| current.source.ring() == Some(key);
        let current = self.current_completion.as_ref().filter(|current| is_of_ring(current));
        let is_ended = current.is_some_and(|current| current.status != Status::Armed);
        let receives = self.receives_of(key).count() + usize::from(is_ended);
        if ring.begin_to_give_back(receives, submitter) {
            self.cancel_receives(key, submitter)?;
        }
        Ok(())
    }

    /// Iterates over the sockets whose receives into a ring are with the kernel.
    fn receives_of(&self, ring: Key) -> impl Iterator<Item = Key> {
        let of_ring = move |(_, socket): &(Key, &Socket)| {
            socket.source.ring() == Some(ring)
                && matches!(socket.phase, Phase::InFlight | Phase::Pausing)
        };
        self.table.iter().filter(of_ring).map(|(key, _)| key)
    }

    /// Cancels the receives into a ring. Their sockets go on.
    fn cancel_receives(&mut self, ring: Key, submitter: &mut Submitter) -> Result<(), DriverError> {
        let receives: Vec<Key> = self.receives_of(ring).collect();
        for key in receives {
            submitter.cancel_quietly(Tag::socket(key))?;
            if let Some(socket) = self.table.get_mut(key) {
                socket.phase = Phase::Pausing;
            }
        }
        Ok(())
    }

    /// Tells the program that a ring has no slot.
    pub(crate) fn tell_of_empty_ring(&mut self, ring: BufferRingId) {
        self.pending_events.push_back(PendingEvent::BufferRingEmpty(ring));
    }

    /// Returns the descriptor of a socket that is not closed.
    pub(crate) fn by_id(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        let key = id.key_in(self.driver).ok()?;
        self.table.get(key).map(|socket| socket.fd.as_fd())
    }

    pub(super) fn by_id_mut(&mut self, id: SocketId) -> Result<(Key, &mut Socket), DriverError> {
        let key = id.key_in(self.driver)?;
        match self.table.get_mut(key) {
            Some(socket) => Ok((key, socket)),
            None => Err(DriverError::UnknownSocket),
        }
    }

    pub(crate) fn pause(
        &mut self,
        id: SocketId,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let (key, socket) = self.by_id_mut(id)?;
        if socket.wanted == Wanted::Open {
            socket.wanted = Wanted::Paused;
            if socket.phase == Phase::InFlight {
                submitter.cancel(Tag::socket(key))?;
                socket.phase = Phase::Pausing;
            }
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self, id: SocketId) -> Result<(), DriverError> {
        let (key, socket) = self.by_id_mut(id)?;
        if socket.wanted == Wanted::Paused {
            socket.wanted = Wanted::Open;
            if socket.phase == Phase::Idle {
                self.to_rearm.push_back(key);
            }
        }
        Ok(())
    }

    /// Closes a socket, which goes with its `Closed` event.
    pub(crate) fn close(
        &mut self,
        id: SocketId,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let (key, socket) = self.by_id_mut(id)?;
        if socket.wanted == Wanted::Closed {
            return Ok(());
        }
        if socket.is_in_flight() {
            submitter.cancel(Tag::socket(key))?;
            socket.wanted = Wanted::Closed;
            return Ok(());
        }
        socket.wanted = Wanted::Closed;
        // The end of the current completion closes the socket that it is of.
        if self.current_completion.as_ref().is_none_or(|current| current.key != key) {
            self.stop_waiting(key, rings);
            self.pending_events.push_back(PendingEvent::Closed(key, None));
        }
        Ok(())
    }

    /// Takes a starved socket out of the queue of its ring.
    fn stop_waiting(&mut self, key: Key, rings: &mut Rings) {
        if let Some(socket) = self.table.get_mut(key)
            && socket.phase == Phase::Starved
        {
            socket.phase = Phase::Idle;
            if let Some(ring) = rings.of_mut(socket.source.ring()) {
                ring.forget_starved();
            }
        }
    }

    /// Removes a socket that is not in flight. Returns its `Closed` event; or `None` if its sending
    /// direction is to end before.
    pub(super) fn remove<B>(
        &mut self,
        key: Key,
        errno: Option<i32>,
        rings: &mut Rings,
    ) -> Option<Event<B>> {
        self.end(key, errno, errno.is_some(), rings)
    }

    /// Removes a socket as [`remove`](Self::remove) does. Its sending direction ends at once, or
    /// when everything is sent.
    pub(super) fn end<B>(
        &mut self,
        key: Key,
        errno: Option<i32>,
        at_once: bool,
        rings: &mut Rings,
    ) -> Option<Event<B>> {
        self.stop_waiting(key, rings);
        let socket = self.table.get_mut(key)?;
        if socket.sending.is_some() {
            (socket.wanted, socket.phase) = (Wanted::Closed, Phase::Ending);
            if let Some(errno) = errno {
                self.end_errors.insert(key, errno);
            }
            self.pending_events.push_back(PendingEvent::EndSending(key, at_once));
            return None;
        }
        self.forget(key, errno, rings)
    }

    /// Returns the key of a socket's sending direction, which is made if it has none.
    pub(crate) fn sending_of(
        &mut self,
        id: SocketId,
        files: &mut Files,
    ) -> Result<Key, DriverError> {
        let (key, socket) = self.by_id_mut(id)?;
        if socket.wanted == Wanted::Closed {
            return Err(DriverError::SocketEnded);
        }
        if let Some(sending) = socket.sending {
            return Ok(sending);
        }
        let sending = files.add_sending(key, Rc::clone(&socket.fd), socket.token);
        if let Some(open) = files.get_mut(sending) {
            open.is_connecting = socket.phase == Phase::Connecting;
        }
        socket.sending = Some(sending);
        Ok(sending)
    }

    /// Returns the key of a socket's sending direction, if it has one.
    pub(crate) fn sending_if_any(&mut self, id: SocketId) -> Result<Option<Key>, DriverError> {
        Ok(self.by_id_mut(id)?.1.sending)
    }

    /// Notes that the sending direction of a socket is over. Returns the `Closed` event if the
    /// socket waited for that.
    pub(crate) fn sending_ended<B>(
        &mut self,
        key: Key,
        error: Option<i32>,
        rings: &mut Rings,
    ) -> Option<Event<B>> {
        let socket = self.table.get_mut(key)?;
        socket.sending = None;
        if socket.phase != Phase::Ending {
            return None;
        }
        let errno = self.end_errors.remove(&key).or(error);
        self.forget(key, errno, rings)
    }

    /// Sets the token of a socket and of its sending direction.
    pub(crate) fn set_token(
        &mut self,
        id: SocketId,
        token: u64,
        files: &mut Files,
    ) -> Result<(), DriverError> {
        let (_, socket) = self.by_id_mut(id)?;
        socket.token = token;
        if let Some(open) = socket.sending.and_then(|sending| files.get_mut(sending)) {
            open.token = token;
        }
        Ok(())
    }

    /// Sets whether a socket stays open when its peer has finished.
    pub(crate) fn set_half_open(&mut self, id: SocketId, yes: bool) -> Result<(), DriverError> {
        self.by_id_mut(id)?.1.half_open = yes;
        Ok(())
    }

    /// Finds the key of a socket.
    pub(crate) fn key(&mut self, id: SocketId) -> Result<Key, DriverError> {
        Ok(self.by_id_mut(id)?.0)
    }

    /// Returns whether something came since the last look, or nothing could come. `None` if the
    /// socket is gone, or is to be.
    pub(crate) fn take_activity(&mut self, key: Key) -> Option<bool> {
        let socket = self.table.get_mut(key).filter(|it| it.wanted != Wanted::Closed)?;
        let is_receiving = matches!(socket.phase, Phase::InFlight | Phase::Polling);
        let came = socket.came & ACTIVE != 0;
        socket.came &= !ACTIVE;
        Some(came || !is_receiving)
    }

    /// Tells the program that nothing came for as long as the idle timeout of a socket.
    pub(crate) fn tell_of_silence(&mut self, key: Key) {
        self.pending_events.push_back(PendingEvent::Idle(key));
    }

    /// Tells the program that the time of a timer is over.
    pub(crate) fn tell_of_timer(&mut self, id: TimerId, token: u64) {
        self.pending_events.push_back(PendingEvent::Timer(id, token));
    }

    /// Removes a socket of which nothing is under way. Returns its `Closed` event.
    fn forget<B>(&mut self, key: Key, errno: Option<i32>, rings: &mut Rings) -> Option<Event<B>> {
        let socket = self.table.remove(key)?;
        if !self.end_errors.is_empty() {
            self.end_errors.remove(&key);
        }
        let token = socket.token;
        if let Some(ring) = rings.of_mut(socket.source.ring()) {
            ring.sockets -= 1;
        }
        self.back_off.told.retain(|&told| told != key);
        // Its descriptor is free now, and may be what a listener waits for.
        drop(socket);
        self.retry();
        let error = errno.map(io::Error::from_raw_os_error);
        Some(Event::Closed { id: SocketId::new(self.driver, key), token, error })
    }

    /// Returns whether an event is due that no completion brings, or bytes of the current
    /// completion are to be handed out.
    pub(crate) fn has_events(&self) -> bool {
        !self.pending_events.is_empty() || self.current_completion.is_some()
    }

    /// Takes the next event that no completion brings.
    pub(crate) fn next_event<B>(
        &mut self,
        rings: &mut Rings,
        files: &mut Files,
        transfers: &mut Transfers,
        submitter: &mut Submitter,
    ) -> Option<Event<B>> {
        while let Some(event) = self.pending_events.pop_front() {
            let event = match event {
                PendingEvent::Closed(key, errno) => self.remove(key, errno, rings),
                PendingEvent::BufferRingEmpty(ring) => {
                    rings.by_id(ring).is_ok().then_some(Event::BufferRingEmpty { ring })
                }
                PendingEvent::AcceptFailed(key, errno) => self.table.get(key).map(|socket| {
                    let (id, token) = (SocketId::new(self.driver, key), socket.token);
                    Event::AcceptFailed { id, token, error: io::Error::from_raw_os_error(errno) }
                }),
                PendingEvent::Idle(key) => self.table.get(key).map(|socket| {
                    let (id, token) = (SocketId::new(self.driver, key), socket.token);
                    Event::Idle { id, token }
                }),
                PendingEvent::Timer(id, token) => Some(Event::Timer { id, token }),
                PendingEvent::Connected(key) => {
                    if let Some(sending) = self.table.get(key).and_then(|socket| socket.sending) {
                        transfers.connected(sending, files);
                    }
                    None
                }
                PendingEvent::EndSending(key, has_failed) => {
                    let sending = self.table.get(key).and_then(|socket| socket.sending);
                    if let Some(sending) = sending
                        && transfers.end_sending(sending, has_failed, files, submitter).is_err()
                    {
                        // The kernel takes no requests to cancel now: again.
                        let again = PendingEvent::EndSending(key, has_failed);
                        self.pending_events.push_front(again);
                        return None;
                    }
                    None
                }
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// Closes every socket, and removes the idle ones. Returns the number of
    /// removed sockets.
    pub(crate) fn close_all(&mut self, rings: &mut Rings) -> usize {
        debug_assert!(self.current_completion.is_none(), "its socket is closed after it");
        self.to_rearm.clear();
        let mut closed = 0;
        for key in self.table.keys() {
            let Some(socket) = self.table.get_mut(key) else { continue };
            socket.wanted = Wanted::Closed;
            if !socket.is_in_flight() {
                closed += usize::from(self.remove::<()>(key, None, rings).is_some());
            }
        }
        closed
    }

    /// Closes a forked child's copy of each descriptor. The socket stays as the parent has it.
    pub(crate) fn close_copies(&mut self) {
        for key in self.table.keys() {
            let fd = self.table.remove(key).and_then(|socket| Rc::into_inner(socket.fd));
            drop(fd.map(QuickClose::into_inner));
        }
    }

    /// Collects the tags of the operations that the kernel has.
    pub(crate) fn tags_in_flight(&self) -> impl Iterator<Item = Tag> {
        let in_flight = self.table.iter().filter(|(_, socket)| socket.is_in_flight());
        in_flight.map(|(key, _)| Tag::socket(key))
    }
}
