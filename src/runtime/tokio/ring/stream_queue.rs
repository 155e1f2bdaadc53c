//! The queue between the driver and one stream of received bytes, and the share of the slots that
//! unread bytes may hold.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::driver::SocketId;
use crate::runtime::tokio::engine::is_worth_a_copy;
use crate::runtime::tokio::send_queue::{Reset, drop_contained};
use crate::sync::{Arc, Mutex, contain};
use crate::uring::Datagram;

/// The slots of an arena that hold messages which nobody has asked for yet.
///
/// A stream may hold as many as half of those that are left, and what comes beyond is copied out of
/// its slot. So however many streams nobody reads, some slots are left for those that are read: of
/// 64 slots one stream may hold 21, two 16 each.
pub(crate) struct Share {
    slots: usize,
    slot_bytes: usize,
    unread: Mutex<usize>,
}

impl Share {
    pub(super) fn new(slots: usize, slot_bytes: usize) -> Share {
        Share { slots, slot_bytes, unread: Mutex::new(0) }
    }

    /// Returns the slots that one stream may hold now.
    fn limit(&self) -> usize {
        self.slots.saturating_sub(*self.unread.lock()) / 2
    }

    fn add(&self, slots: usize) {
        *self.unread.lock() += slots;
    }

    fn sub(&self, slots: usize) {
        *self.unread.lock() -= slots;
    }
}

/// The slots that a stream has taken out of its queue, and not handed out. They count until this is
/// dropped.
pub(crate) struct Held {
    share: Arc<Share>,
    slots: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.sub(self.slots);
    }
}

/// A message that a queue holds: bytes of a connection, or a datagram.
pub(crate) trait Message {
    /// Returns the bytes, which may be exchanged for a copy.
    fn bytes(&mut self) -> &mut Bytes;
}

impl Message for Bytes {
    #[inline]
    fn bytes(&mut self) -> &mut Bytes {
        self
    }
}

impl Message for Datagram<Bytes> {
    fn bytes(&mut self) -> &mut Bytes {
        &mut self.bytes
    }
}

/// The messages that arrived on one socket and that its stream has not taken.
pub(crate) struct StreamQueue<M = Bytes> {
    state: Mutex<State<M>>,
    /// Messages after which the socket is paused until the stream takes them.
    messages_max: usize,
    share: Arc<Share>,
    /// The reset of the connection, if the sending side was told of one.
    reset: Reset,
}

struct State<M> {
    socket: Option<SocketId>,
    arrived: VecDeque<M>,
    /// The slots that the messages among them lie in which were not copied.
    in_slots: usize,
    /// The result of the socket, once the peer has finished or the socket has failed.
    end: Option<io::Result<()>>,
    /// Set when the stream was dropped.
    is_abandoned: bool,
    is_paused: bool,
    waker: Option<Waker>,
}

/// The change that the length of a queue asks of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backpressure {
    Unchanged,
    Pause,
    Resume,
}

/// The messages that a stream took out.
pub(crate) struct Taken {
    pub(crate) change: Backpressure,
    /// The slots that they lie in, which still count as unread: see [`StreamQueue::hold`].
    pub(crate) slots: usize,
}

impl<M> State<M> {
    fn new() -> State<M> {
        State {
            socket: None,
            arrived: VecDeque::new(),
            in_slots: 0,
            end: None,
            is_abandoned: false,
            is_paused: false,
            waker: None,
        }
    }

    /// Moves all messages into `taken`, or takes the end. Returns `None` if neither has come.
    fn take(&mut self, taken: &mut VecDeque<M>) -> Option<io::Result<Taken>> {
        std::mem::swap(&mut self.arrived, taken);
        if !taken.is_empty() {
            let was_paused = std::mem::take(&mut self.is_paused);
            let change = match was_paused {
                true => Backpressure::Resume,
                false => Backpressure::Unchanged,
            };
            return Some(Ok(Taken { change, slots: std::mem::take(&mut self.in_slots) }));
        }
        let end = std::mem::replace(self.end.as_mut()?, Ok(()));
        Some(end.map(|()| Taken { change: Backpressure::Unchanged, slots: 0 }))
    }
}

impl<M: Message> StreamQueue<M> {
    pub(crate) fn new(messages_max: usize, share: Arc<Share>, reset: Reset) -> StreamQueue<M> {
        StreamQueue { state: Mutex::new(State::new()), messages_max, share, reset }
    }

    pub(crate) fn known_reset(&self) -> &Reset {
        &self.reset
    }

    /// Records the socket that fills the queue. Returns `false` if the stream is gone already.
    pub(super) fn attach(&self, socket: SocketId) -> bool {
        let mut state = self.state.lock();
        state.socket = Some(socket);
        !state.is_abandoned
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        self.state.lock().socket
    }

    /// Appends a message, and wakes the stream. Returns [`Backpressure::Pause`] if the queue is
    /// full now.
    pub(super) fn push(&self, mut message: M) -> Backpressure {
        let limit = self.share.limit();
        let mut state = self.state.lock();
        if state.is_abandoned {
            drop(state);
            drop_contained(message);
            return Backpressure::Unchanged;
        }
        // A long message lies in several slots.
        let (len, slot_bytes) = (message.bytes().len(), self.share.slot_bytes);
        let slots = len.div_ceil(slot_bytes).max(1);
        let mut copied = None;
        // A socket that is told to pause may receive a few messages more.
        if is_worth_a_copy(len, slot_bytes, state.in_slots) || state.in_slots + slots > limit {
            let copy = Bytes::copy_from_slice(message.bytes());
            copied = Some(std::mem::replace(message.bytes(), copy));
        } else {
            state.in_slots += slots;
            self.share.add(slots);
        }
        state.arrived.push_back(message);
        let is_full = state.arrived.len() >= self.messages_max || state.in_slots >= limit;
        let must_pause = is_full && !state.is_paused;
        state.is_paused |= must_pause;
        let waker = state.waker.take();
        drop(state);
        // Outside of the lock: a slot that is free wakes others.
        copied.into_iter().for_each(drop_contained);
        // Outside of the lock: the stream takes it at once.
        wake(waker);
        if must_pause { Backpressure::Pause } else { Backpressure::Unchanged }
    }

    /// Records the end of the socket, and wakes the stream. It is no end in good order if a send
    /// was told of a reset.
    pub(super) fn end(&self, end: io::Result<()>) {
        let end = end.and_then(|()| self.reset.error().map_or(Ok(()), Err));
        let mut state = self.state.lock();
        state.socket = None;
        state.end.get_or_insert(end);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Moves all messages into `taken`, which is empty; `taken` stays empty at the end.
    ///
    /// The change is [`Backpressure::Resume`] if the socket was paused. Returns the error of the
    /// socket once.
    pub(crate) fn poll_take(
        &self,
        taken: &mut VecDeque<M>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Taken>> {
        let mut state = self.state.lock();
        if let Some(result) = state.take(taken) {
            return Poll::Ready(result);
        }
        let known = state.waker.as_ref();
        if known.is_some_and(|known| known.will_wake(context.waker())) {
            return Poll::Pending;
        }
        drop(state);
        // Outside of the lock: cloning and dropping a waker runs code of the user's.
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        let result = state.take(taken);
        let replaced = if result.is_none() { state.waker.replace(waker) } else { Some(waker) };
        drop(state);
        drop(replaced);
        result.map_or(Poll::Pending, Poll::Ready)
    }

    /// Makes the slots that were taken out count until the value is dropped.
    pub(crate) fn hold(&self, slots: usize) -> Held {
        Held { share: Arc::clone(&self.share), slots }
    }

    /// Drops the messages, because the stream is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        let left = (std::mem::take(&mut state.arrived), state.waker.take());
        let slots = std::mem::take(&mut state.in_slots);
        drop(state);
        self.share.sub(slots);
        // Outside of the lock: messages and wakers may run code of others.
        drop(left);
    }
}

/// Wakes the task of a stream. A waker that panics harms neither the engine nor other streams.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        contain("the waker of a stream", || waker.wake());
    }
}
