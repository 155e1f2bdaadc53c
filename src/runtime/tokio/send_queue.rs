//! The queue between the senders of one connection and the engine that sends for them.
//!
//! The bytes that the queue has taken go out whole and in order, and then the end of the stream if
//! it was asked for. If that cannot be, the connection is reset, and every later call is told why.
//!
//! The queue knows nothing of the engine. An engine takes sends out ([`SendQueue::next`]), and says
//! when each is over ([`SendQueue::sent`]) or that the connection has failed
//! ([`SendQueue::fail`]).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use super::socket::Link;
use crate::buffer::Payload;
use crate::sync::{Arc, Mutex, contain};
use crate::system::{SendOptions, is_tcp_closed, limit_standstill, reset_or_shut_down, shut_down};
use crate::wait::{Panicked, WakeList};

/// The bytes that the shortest send counts for, because its place in the queue takes memory too.
const COST_MIN: usize = 64;

/// The reset of a connection, as its sending side and its stream know it: the kernel tells a reset
/// once a socket, and then only the end.
#[derive(Clone, Default)]
pub(super) struct Reset(Arc<Known>);

#[derive(Default)]
struct Known {
    errno: OnceLock<i32>,
    /// The sending side of a stream that has one of its own.
    sender: OnceLock<Weak<SendQueue>>,
}

impl Reset {
    /// Notes the error of a call on the socket.
    pub(super) fn note(&self, error: &io::Error) {
        // A broken pipe says that the reset was told before, or that this side was shut down.
        if let Some(errno) = error.raw_os_error()
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut)
        {
            let _ = self.0.errno.set(errno);
        }
    }

    /// Returns whether both are of one connection.
    pub(super) fn is_same(&self, other: &Reset) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the error of a stream that ended: the reset if there was one, whoever was told.
    pub(super) fn error(&self) -> Option<io::Error> {
        if let Some(&errno) = self.0.errno.get() {
            return Some(io::Error::from_raw_os_error(errno));
        }
        self.0.sender.get()?.upgrade()?.untold_reset()
    }
}

/// The sends of one connection that are queued or under way, and the tasks that wait for them.
pub(super) struct SendQueue {
    socket: Link,
    /// The most bytes that are queued, under way and reserved together.
    bytes_max: usize,
    reset: Reset,
    /// The connection in the log, at its finest level.
    span: Span,
    /// The state, once something was queued, or has ended. A connection that only writes as tokio
    /// does has none: neither memory nor a lock.
    state: OnceLock<Box<Mutex<SendState>>>,
}

/// A send that the queue has taken.
pub(super) struct QueuedSend {
    pub(super) number: u64,
    pub(super) payload: Payload,
    pub(super) options: SendOptions,
}

/// A send that is queued or under way, or over while an older one is not.
struct Outstanding {
    cost: usize,
    is_over: bool,
}

/// The life of the sending side.
///
/// | phase     | sends are                               | goes on to                    |
/// |-----------|-----------------------------------------|-------------------------------|
/// | `Open`    | taken                                   | `Closing`, `Closed`, `Failed` |
/// | `Closing` | refused; those that were taken go out   | `Closed`, `Failed`            |
/// | `Closed`  | refused; the end of the stream is out, or the socket is another's | `Failed` |
/// | `Failed`  | refused with the reason                 |                               |
enum Phase {
    Open,
    Closing,
    Closed,
    Failed(Failure),
}

/// The reason of a failure, which every later call is told.
enum Failure {
    System(i32),
    Text(io::ErrorKind, String),
}

/// A task that waits for room.
struct Waiting {
    cost: usize,
    waker: Option<Waker>,
}

/// A task that waits until the sends before `until` are over; with `u64::MAX`, until the end of the
/// stream is out.
struct Watching {
    until: u64,
    waker: Option<Waker>,
}

// Invariants: 1. `outstanding` has the sends from number `oldest` on, and its first is not over.
// 2. `queued` has the last of them, in order. 3. `charged` is what they cost, and what is reserved;
// it is at most `bytes_max`. 4. Only the first task in line takes room; when it fits, its waker was
// woken since its last poll. 5. A watching task whose sends are over was woken since its last poll.
// 6. While `queued` is not empty, `is_attended`.
struct SendState {
    queued: VecDeque<QueuedSend>,
    oldest: u64,
    outstanding: VecDeque<Outstanding>,
    charged: usize,
    line: BTreeMap<u64, Waiting>,
    watching: BTreeMap<u64, Watching>,
    next_ticket: u64,
    phase: Phase,
    /// The engine was told of sends, and has not found the queue empty since.
    is_attended: bool,
    /// This side has begun to send the end of the stream.
    is_end_sent: bool,
}

/// The code of the user's that a change of the state leads to. It runs when this is dropped: the
/// methods declare it before they lock the state, so that the lock is gone by then.
#[derive(Default)]
struct Aftermath {
    wakers: WakeList,
    dropped: VecDeque<QueuedSend>,
}

impl Drop for Aftermath {
    fn drop(&mut self) {
        self.dropped.drain(..).for_each(drop_contained);
        let wakers = std::mem::take(&mut self.wakers);
        contain("a waker", || {
            let mut panicked = Panicked::default();
            wakers.run(&mut panicked);
            panicked.resume();
        });
    }
}

/// Drops what belongs to the user: its drop may panic, and harms nobody else.
pub(super) fn drop_contained<T>(value: T) {
    contain("a drop", || drop(value));
}

/// Makes the span of a connection for the log: at the finest level only.
pub(super) fn connection_span(socket: BorrowedFd<'_>) -> Span {
    tracing::trace_span!("connection", fd = socket.as_raw_fd())
}

/// Tells the log what a receive brought: at the finest level only.
#[inline]
pub(super) fn trace_received(span: &Span, received: Result<usize, &io::Error>) {
    if Level::TRACE <= LevelFilter::current() {
        tell_received(span, received);
    }
}

#[cold]
fn tell_received(span: &Span, received: Result<usize, &io::Error>) {
    match received {
        Ok(0) => tracing::trace!(parent: span, "the peer has finished"),
        Ok(bytes) => tracing::trace!(parent: span, bytes, "received"),
        Err(error) => tracing::trace!(parent: span, %error, "receives no more"),
    }
}

/// The place of a task in one of the queue's lists, from its first poll to its last.
pub(super) type Place = Option<u64>;

impl Failure {
    fn of(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(errno) => Failure::System(errno),
            None => Failure::Text(error.kind(), error.to_string()),
        }
    }

    fn to_error(&self) -> io::Error {
        match self {
            Failure::System(errno) => io::Error::from_raw_os_error(*errno),
            Failure::Text(kind, text) => io::Error::new(*kind, text.clone()),
        }
    }
}

impl Phase {
    /// Returns the reason why a send is refused.
    fn refusal(&self) -> Option<io::Error> {
        match self {
            Phase::Open => None,
            Phase::Closing | Phase::Closed => Some(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the sending side of the connection was shut down",
            )),
            Phase::Failed(failure) => Some(failure.to_error()),
        }
    }
}

impl SendState {
    fn new() -> SendState {
        SendState {
            queued: VecDeque::new(),
            oldest: 0,
            outstanding: VecDeque::new(),
            charged: 0,
            line: BTreeMap::new(),
            watching: BTreeMap::new(),
            next_ticket: 0,
            phase: Phase::Open,
            is_attended: false,
            is_end_sent: false,
        }
    }

    /// Returns the number of the next send.
    fn end(&self) -> u64 {
        self.oldest + self.outstanding.len() as u64
    }

    fn take_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Takes room for `cost` if no task is before this one and the room is there.
    fn try_room(
        &mut self,
        place: &mut Place,
        cost: usize,
        bytes_max: usize,
        after: &mut Aftermath,
    ) -> Poll<io::Result<()>> {
        let refusal = self.phase.refusal();
        let first = self.line.first_key_value().map(|(&ticket, _)| ticket);
        let is_first = first.is_none() || first == *place;
        if refusal.is_none() && !(is_first && self.charged + cost <= bytes_max) {
            return Poll::Pending;
        }
        self.leave_line(place, after);
        if let Some(refusal) = refusal {
            return Poll::Ready(Err(refusal));
        }
        self.charged += cost;
        self.wake_first(bytes_max, after);
        Poll::Ready(Ok(()))
    }

    fn leave_line(&mut self, place: &mut Place, after: &mut Aftermath) {
        if let Some(ticket) = place.take() {
            after.wakers.push_unneeded(self.line.remove(&ticket).and_then(|waiting| waiting.waker));
        }
    }

    /// Wakes the first task in line if it fits.
    fn wake_first(&mut self, bytes_max: usize, after: &mut Aftermath) {
        if let Some(mut first) = self.line.first_entry()
            && self.charged + first.get().cost <= bytes_max
        {
            after.wakers.push_woken(first.get_mut().waker.take());
        }
    }

    /// Wakes every task in line: each of them is refused.
    fn wake_line(&mut self, after: &mut Aftermath) {
        let line = self.line.values_mut();
        line.for_each(|waiting| after.wakers.push_woken(waiting.waker.take()));
    }

    /// Wakes the tasks whose sends are over.
    fn wake_watching(&mut self, after: &mut Aftermath) {
        let oldest = match self.phase {
            Phase::Closed | Phase::Failed(_) => u64::MAX,
            Phase::Open | Phase::Closing => self.oldest,
        };
        // Later tasks wait for later sends, but for those that wait for the end of the stream.
        let over = self.watching.values_mut().filter(|watching| watching.until <= oldest);
        over.for_each(|watching| after.wakers.push_woken(watching.waker.take()));
    }

    /// Returns how the sends before `until` ended, once they have.
    fn result_of(&self, until: u64) -> Option<io::Result<()>> {
        match &self.phase {
            Phase::Failed(failure) => Some(Err(failure.to_error())),
            Phase::Closed => Some(Ok(())),
            Phase::Open | Phase::Closing => (self.oldest >= until).then_some(Ok(())),
        }
    }

    /// Ends all sends with the reason, and lets no further one in.
    fn fail(&mut self, error: &io::Error, after: &mut Aftermath) {
        self.phase = Phase::Failed(Failure::of(error));
        self.oldest = self.end();
        self.outstanding.clear();
        self.charged = 0;
        after.dropped = std::mem::take(&mut self.queued);
        self.wake_line(after);
        self.wake_watching(after);
    }
}

impl SendQueue {
    pub(super) fn new(socket: Link, bytes_max: usize) -> SendQueue {
        let (state, reset) = (OnceLock::new(), Reset::default());
        let span = connection_span(socket.as_fd());
        SendQueue { socket, bytes_max: bytes_max.max(1), reset, span, state }
    }

    #[inline]
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Returns the state, which there is from now on.
    fn state(&self) -> &Mutex<SendState> {
        self.state.get_or_init(|| Box::new(Mutex::new(SendState::new())))
    }

    /// Returns whether nothing was ever queued, waited for or ended.
    #[inline]
    fn is_untouched(&self) -> bool {
        self.state.get().is_none()
    }

    pub(super) fn known_reset(&self) -> &Reset {
        &self.reset
    }

    /// Has the stream of this connection ask here how it ended.
    pub(super) fn answer_stream(self: &Arc<Self>) {
        let _ = self.reset.0.sender.set(Arc::downgrade(self));
    }

    /// Returns the reset of a connection whose stream has ended, though none was noted.
    ///
    /// The call that was told of it may be on its way to note it, or it was the program's own. A
    /// connection that ends in order is not closed before this side has sent its end.
    pub(super) fn untold_reset(&self) -> Option<io::Error> {
        let is_end_sent = !self.is_untouched() && self.state().lock().is_end_sent;
        let is_reset = !is_end_sent && is_tcp_closed(self.as_fd());
        is_reset.then(|| io::Error::from_raw_os_error(libc::ECONNRESET))
    }

    /// Resets the connection.
    fn reset_or_shut_down(&self) {
        if reset_or_shut_down(self.socket.as_fd()) {
            self.reset.note(&io::Error::from_raw_os_error(libc::ECONNRESET));
        }
    }

    /// Returns the socket, when nobody uses the queue any more.
    pub(super) fn into_socket(self) -> Link {
        self.socket
    }

    #[inline]
    pub(super) fn socket(&self) -> &Link {
        &self.socket
    }

    /// Returns the most bytes that are queued, under way and reserved together.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns the room that a send of `bytes` takes: all of it for one that is larger.
    pub(super) fn cost(&self, bytes: usize) -> usize {
        bytes.max(COST_MIN).min(self.bytes_max)
    }
}

/// The side of the senders.
impl SendQueue {
    /// Takes room for `cost` when every task that asked before has it, or has left.
    pub(super) fn poll_room(
        &self,
        place: &mut Place,
        cost: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut after = Aftermath::default();
        {
            let mut state = self.state().lock();
            let polled = state.try_room(place, cost, self.bytes_max, &mut after);
            let known = place.and_then(|ticket| state.line.get(&ticket)?.waker.as_ref());
            if polled.is_ready() || known.is_some_and(|known| known.will_wake(context.waker())) {
                drop(state);
                return polled;
            }
        }
        // Outside of the lock: cloning a waker runs code of the user's.
        let waker = context.waker().clone();
        let mut state = self.state().lock();
        let polled = state.try_room(place, cost, self.bytes_max, &mut after);
        if polled.is_ready() {
            after.wakers.push_unneeded(Some(waker));
            return polled;
        }
        let ticket = *place.get_or_insert_with(|| state.take_ticket());
        let waiting = Waiting { cost, waker: Some(waker) };
        let known = state.line.insert(ticket, waiting);
        after.wakers.push_unneeded(known.and_then(|waiting| waiting.waker));
        polled
    }

    /// Takes room for `cost` if it is there, or else a place in line for a task that asks later.
    /// Returns whether there was room.
    pub(super) fn try_room(&self, place: &mut Place, cost: usize) -> io::Result<bool> {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        if let Poll::Ready(taken) = state.try_room(place, cost, self.bytes_max, &mut after) {
            drop(state);
            return taken.map(|()| true);
        }
        let ticket = *place.get_or_insert_with(|| state.take_ticket());
        state.line.insert(ticket, Waiting { cost, waker: None });
        Ok(false)
    }

    /// Gives up the place of a task that waits for room.
    pub(super) fn leave_line(&self, place: &mut Place) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        state.leave_line(place, &mut after);
        state.wake_first(self.bytes_max, &mut after);
    }

    /// Gives back room that was taken for `cost` and not used.
    pub(super) fn give_back(&self, cost: usize) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        // A queue that has failed charges nothing.
        state.charged = state.charged.saturating_sub(cost);
        state.wake_first(self.bytes_max, &mut after);
    }

    /// Queues a send, for which room of `reserved` was taken. Returns `true` if the engine must be
    /// told.
    pub(super) fn push(
        &self,
        payload: Payload,
        options: SendOptions,
        reserved: usize,
    ) -> io::Result<bool> {
        let mut after = Aftermath::default();
        let len = payload.as_ref().len();
        tracing::trace!(parent: &self.span, bytes = len, "queued");
        let cost = if len == 0 { 0 } else { self.cost(len).min(reserved) };
        let mut state = self.state().lock();
        if let Some(refusal) = state.phase.refusal() {
            state.charged = state.charged.saturating_sub(reserved);
            drop(state);
            return Err(refusal);
        }
        state.charged -= reserved - cost;
        state.wake_first(self.bytes_max, &mut after);
        if len == 0 {
            // There is nothing to send.
            return Ok(false);
        }
        let number = state.end();
        state.outstanding.push_back(Outstanding { cost, is_over: false });
        state.queued.push_back(QueuedSend { number, payload, options });
        let was_attended = std::mem::replace(&mut state.is_attended, true);
        Ok(!was_attended)
    }

    /// Returns the number of the next send.
    pub(super) fn end(&self) -> u64 {
        self.state().lock().end()
    }

    /// Waits until the sends before `until` are over.
    pub(super) fn poll_over(
        &self,
        place: &mut Place,
        until: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut after = Aftermath::default();
        if place.is_none()
            && let Some(result) = self.state().lock().result_of(until)
        {
            return Poll::Ready(result);
        }
        // Outside of the lock: cloning a waker runs code of the user's.
        let waker = context.waker().clone();
        let mut state = self.state().lock();
        let known = place.take().and_then(|ticket| state.watching.remove(&ticket));
        after.wakers.push_unneeded(known.and_then(|known| known.waker));
        if let Some(result) = state.result_of(until) {
            after.wakers.push_unneeded(Some(waker));
            return Poll::Ready(result);
        }
        let ticket = state.take_ticket();
        state.watching.insert(ticket, Watching { until, waker: Some(waker) });
        *place = Some(ticket);
        Poll::Pending
    }

    /// Waits until the end of the stream is out, which [`close`](Self::close) asks for.
    pub(super) fn poll_closed(
        &self,
        place: &mut Place,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(place, u64::MAX, context)
    }

    /// Gives up the place of a task that waits for the end of sends.
    pub(super) fn stop_watching(&self, place: &mut Place) {
        let Some(ticket) = place.take() else { return };
        let watching = self.state().lock().watching.remove(&ticket);
        drop_contained(watching);
    }

    /// Waits until a write may follow what is queued. Fails if the connection sends no more.
    #[inline]
    pub(super) fn poll_turn(
        &self,
        place: &mut Place,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_untouched() {
            return Poll::Ready(Ok(()));
        }
        let until = {
            let state = self.state().lock();
            if let Some(refusal) = state.phase.refusal() {
                return Poll::Ready(Err(refusal));
            }
            if place.is_none() && state.outstanding.is_empty() {
                return Poll::Ready(Ok(()));
            }
            state.end()
        };
        self.poll_over(place, until, context)
    }

    /// Waits until everything that is queued now is over.
    #[inline]
    pub(super) fn poll_flushed(
        &self,
        place: &mut Place,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_untouched() {
            return Poll::Ready(Ok(()));
        }
        self.poll_over(place, self.end(), context)
    }

    /// Returns the reason why the connection sends no more, if it does not.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        if self.is_untouched() {
            return None;
        }
        self.state().lock().phase.refusal()
    }

    /// Lets no further send in. The end of the stream follows those that were taken.
    pub(super) fn close(&self) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        let Phase::Open = state.phase else { return };
        state.phase = Phase::Closing;
        // The tasks in line are refused.
        state.wake_line(&mut after);
        if state.outstanding.is_empty() {
            drop(state);
            self.end_stream();
        }
    }

    /// Ends the queue, which is idle, without an end of the connection.
    pub(super) fn detach(&self) {
        let mut state = self.state().lock();
        if let Phase::Open = state.phase {
            state.phase = Phase::Closed;
        }
    }

    /// Closes the queue, whose sender is gone. A peer that takes nothing for long is not waited
    /// for.
    pub(super) fn release(&self) {
        self.close();
        if !self.is_idle() {
            limit_standstill(self.socket.as_fd());
        }
    }

    /// Resets the connection. What is queued is dropped.
    pub(super) fn abort(&self) {
        let reason = "the connection was aborted by this side";
        self.fail(&io::Error::new(io::ErrorKind::ConnectionAborted, reason));
        self.reset_or_shut_down();
    }
}

/// The side of the engine.
impl SendQueue {
    /// Takes the next send to be begun. With `None` the engine is told of the next one.
    pub(super) fn next(&self) -> Option<QueuedSend> {
        let mut state = self.state().lock();
        let next = state.queued.pop_front();
        state.is_attended = next.is_some();
        next
    }

    /// Takes a further send behind one that is not over. The engine stays told.
    pub(super) fn next_behind(&self) -> Option<QueuedSend> {
        self.state().lock().queued.pop_front()
    }

    /// Puts a send back that was taken and could not be begun.
    pub(super) fn put_back(&self, send: QueuedSend) {
        let mut state = self.state().lock();
        if send.number >= state.oldest {
            state.queued.push_front(send);
            return;
        }
        drop(state);
        drop_contained(send);
    }

    /// Notes that a send is over: its memory is free. Sends the end of the stream behind the last
    /// one.
    pub(super) fn sent(&self, number: u64) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        let Some(index) = number.checked_sub(state.oldest) else { return };
        let Some(send) = state.outstanding.get_mut(index as usize) else { return };
        send.is_over = true;
        state.charged -= std::mem::take(&mut send.cost);
        while state.outstanding.front().is_some_and(|oldest| oldest.is_over) {
            state.outstanding.pop_front();
            state.oldest += 1;
        }
        state.wake_first(self.bytes_max, &mut after);
        state.wake_watching(&mut after);
        let is_last = state.outstanding.is_empty() && matches!(state.phase, Phase::Closing);
        drop(state);
        if is_last {
            self.end_stream();
        }
    }

    /// Ends the queue because the connection has failed, and resets the connection, so that the
    /// peer cannot take what it has for the whole.
    pub(super) fn fail(&self, error: &io::Error) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        if let Phase::Failed(_) = state.phase {
            return;
        }
        state.fail(error, &mut after);
        drop(state);
        tracing::trace!(parent: &self.span, %error, "sends no more");
        self.reset.note(error);
        self.reset_or_shut_down();
    }

    /// Fails the queue if it has sends that are not over.
    pub(super) fn fail_if_busy(&self, error: &io::Error) {
        if !self.is_idle() {
            self.fail(error);
        }
    }

    /// Ends a queue that is open: with the end of the stream if everything is out, else as
    /// [`fail`](Self::fail) does.
    pub(super) fn end_if_open(&self, error: &io::Error) {
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        let Phase::Open = state.phase else { return };
        let is_idle = state.outstanding.is_empty();
        state.is_end_sent = is_idle;
        state.fail(error, &mut after);
        drop(state);
        if is_idle {
            // There is nobody to tell an error.
            let _ = shut_down(self.as_fd(), Shutdown::Write);
        } else {
            self.reset_or_shut_down();
        }
    }

    /// Returns whether sends are left to go out that no half waits for any more.
    pub(super) fn lingers(&self) -> bool {
        if self.is_untouched() {
            return false;
        }
        let state = self.state().lock();
        matches!(state.phase, Phase::Closing) && !state.outstanding.is_empty()
    }

    /// Returns the bytes that are queued, under way or reserved.
    pub(super) fn charged(&self) -> usize {
        if self.is_untouched() {
            return 0;
        }
        self.state().lock().charged
    }

    /// Returns whether every send is over.
    pub(super) fn is_idle(&self) -> bool {
        if self.is_untouched() {
            return true;
        }
        self.state().lock().outstanding.is_empty()
    }

    /// Sends the end of the stream, and notes how that went.
    fn end_stream(&self) {
        self.state().lock().is_end_sent = true;
        let result = match shut_down(self.as_fd(), Shutdown::Write) {
            // The peer is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        };
        let mut after = Aftermath::default();
        let mut state = self.state().lock();
        match result {
            Ok(()) if matches!(state.phase, Phase::Closing) => state.phase = Phase::Closed,
            Ok(()) => {}
            Err(error) => state.fail(&error, &mut after),
        }
        state.wake_watching(&mut after);
    }
}

impl AsFd for SendQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::task::Wake;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sync::{AtomicU32, Ordering};

    /// A flag that a waker sets.
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(1, Ordering::Relaxed);
        }
    }

    /// A task that sends, or that waits until what is queued is over. It is polled only when it was
    /// woken.
    struct Task {
        number: usize,
        cost: usize,
        is_flush: bool,
        until: Option<u64>,
        place: Place,
        woken: Arc<Woken>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin { cost: usize, is_flush: bool },
        Poll { which: prop::sample::Index },
        GiveUp { which: prop::sample::Index },
        UsePermit { which: prop::sample::Index, is_dropped: bool },
        Take,
        Sent { which: prop::sample::Index },
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = any::<prop::sample::Index>;
        prop_oneof![
            4 => (1usize..400, prop::bool::weighted(0.2))
                .prop_map(|(cost, is_flush)| Step::Begin { cost, is_flush }),
            6 => which().prop_map(|which| Step::Poll { which }),
            2 => which().prop_map(|which| Step::GiveUp { which }),
            4 => (which(), prop::bool::weighted(0.3))
                .prop_map(|(which, is_dropped)| Step::UsePermit { which, is_dropped }),
            3 => Just(Step::Take),
            3 => which().prop_map(|which| Step::Sent { which }),
        ]
    }

    /// A queue, the tasks at it, and the engine behind it.
    struct Play {
        queue: SendQueue,
        begun: usize,
        waiting: Vec<Task>,
        /// The tasks that have room, and what it costs.
        permits: Vec<(usize, usize)>,
        /// The order in which senders got their room, and that in which they queued.
        served: Vec<usize>,
        queued: Vec<usize>,
        /// The sends that the engine has.
        taken: Vec<u64>,
        sent: Vec<usize>,
    }

    impl Play {
        const BYTES_MAX: usize = 300;

        fn new() -> Play {
            let (socket, _) = UnixStream::pair().unwrap();
            Play {
                queue: SendQueue::new(Link::own(socket.into()), Play::BYTES_MAX),
                begun: 0,
                waiting: Vec::new(),
                permits: Vec::new(),
                served: Vec::new(),
                queued: Vec::new(),
                taken: Vec::new(),
                sent: Vec::new(),
            }
        }

        /// Polls a task if it was woken. Returns `true` if it was.
        fn poll(&mut self, index: usize) -> bool {
            let task = &mut self.waiting[index];
            if task.woken.0.swap(0, Ordering::Relaxed) == 0 {
                return false;
            }
            let waker = Waker::from(Arc::clone(&task.woken));
            let mut context = Context::from_waker(&waker);
            let polled = if task.is_flush {
                let until = *task.until.get_or_insert_with(|| self.queue.end());
                self.queue.poll_over(&mut task.place, until, &mut context)
            } else {
                self.queue.poll_room(&mut task.place, task.cost, &mut context)
            };
            if let Poll::Ready(result) = polled {
                result.unwrap();
                let task = self.waiting.remove(index);
                if !task.is_flush {
                    self.served.push(task.number);
                    self.permits.push((task.number, task.cost));
                }
            }
            true
        }

        fn use_permit(&mut self, index: usize, is_dropped: bool) {
            let (number, cost) = self.permits.remove(index);
            if is_dropped {
                return self.queue.give_back(cost);
            }
            // As many bytes as the number of the sender says, if it has the room.
            let bytes = Bytes::from(vec![0; cost]);
            self.queue.push(bytes.into(), SendOptions::new(), cost).unwrap();
            self.queued.push(number);
        }

        fn take(&mut self) -> bool {
            let Some(send) = self.queue.next() else { return false };
            self.taken.push(send.number);
            self.sent.push(self.queued[self.sent.len()]);
            true
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Begin { cost, is_flush } => {
                    let woken = Arc::new(Woken(AtomicU32::new(1)));
                    let (number, cost) = (self.begun, self.queue.cost(cost));
                    let (until, place) = (None, None);
                    self.waiting.push(Task { number, cost, is_flush, until, place, woken });
                    // In line from now on.
                    self.poll(self.waiting.len() - 1);
                    self.begun += 1;
                }
                Step::Poll { which } if !self.waiting.is_empty() => {
                    self.poll(which.index(self.waiting.len()));
                }
                Step::GiveUp { which } if !self.waiting.is_empty() => {
                    let mut task = self.waiting.remove(which.index(self.waiting.len()));
                    if task.is_flush {
                        self.queue.stop_watching(&mut task.place);
                    } else {
                        self.queue.leave_line(&mut task.place);
                    }
                }
                Step::UsePermit { which, is_dropped } if !self.permits.is_empty() => {
                    self.use_permit(which.index(self.permits.len()), is_dropped);
                }
                Step::Take => {
                    self.take();
                }
                Step::Sent { which } if !self.taken.is_empty() => {
                    let number = self.taken.remove(which.index(self.taken.len()));
                    self.queue.sent(number);
                }
                _ => {}
            }
            let state = self.queue.state().lock();
            assert!(state.charged <= Play::BYTES_MAX);
            assert!(state.outstanding.front().is_none_or(|oldest| !oldest.is_over));
            assert_eq!(state.line.len() + state.watching.len(), self.waiting.len());
        }

        /// Lets everything end, and polls no task that is not woken.
        fn finish(&mut self) {
            loop {
                let mut moved = false;
                while !self.permits.is_empty() {
                    self.use_permit(0, false);
                    moved = true;
                }
                while self.take() {}
                while let Some(number) = self.taken.pop() {
                    self.queue.sent(number);
                    moved = true;
                }
                for index in (0..self.waiting.len()).rev() {
                    moved |= self.poll(index);
                }
                if !moved {
                    break;
                }
            }
        }
    }

    proptest! {
        /// The properties: each task that stays is served by wakes alone; room is given in the
        /// order in which it was asked for; what is queued is taken in its order; the bound holds.
        #[test]
        fn tasks_are_served_in_order_and_no_wake_is_lost(
            steps in prop::collection::vec(step(), 0..150),
        ) {
            let mut play = Play::new();
            for step in steps {
                play.run(step);
            }
            play.finish();
            prop_assert!(play.waiting.is_empty(), "{} tasks are never woken", play.waiting.len());
            prop_assert!(play.served.is_sorted(), "{:?}", play.served);
            prop_assert_eq!(&play.sent, &play.queued);
            let state = play.queue.state().lock();
            prop_assert_eq!((state.charged, state.outstanding.len()), (0, 0));
            prop_assert!(!state.is_attended);
        }
    }
}
