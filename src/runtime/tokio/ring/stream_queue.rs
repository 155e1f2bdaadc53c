//! The queue between the driver and one stream of received bytes, and the share of the slots that
//! unread bytes may hold.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::driver::SocketId;
use crate::lease::UnreadSlots;
use crate::runtime::tokio::engine::is_worth_a_copy;
use crate::runtime::tokio::send_queue::{Reset, drop_contained};
use crate::sync::{Arc, Mutex, contain};
use crate::uring::Datagram;

/// The slots of one arena, and the unread messages in them.
///
/// A stream may hold unread a share of what is left ([`UnreadSlots`]). What comes beyond is copied
/// out of its slot.
pub(crate) struct Share {
    slot_bytes: usize,
    unread: UnreadSlots,
}

impl Share {
    pub(super) fn new(slots: usize, slot_bytes: usize) -> Share {
        Share { slot_bytes, unread: UnreadSlots::new(slots) }
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
    state: Mutex<QueueState<M>>,
    /// Messages after which the socket is paused until the stream takes them.
    messages_max: usize,
    share: Arc<Share>,
    /// The reset of the connection, if the sending side was told of one.
    reset: Reset,
}

struct QueueState<M> {
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

/// The consequences of a message that was appended.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// The queue is full now: the socket is to be paused.
    pub(super) must_pause: bool,
    /// The message was copied out of its slot.
    pub(super) is_copied: bool,
}

/// The messages that a stream took out.
pub(crate) struct Taken {
    /// The socket is paused, and is to go on.
    pub(crate) must_resume: bool,
    /// The slots that they lie in, which count as unread until [`StreamQueue::hand_out`].
    pub(crate) slots: usize,
}

impl<M> QueueState<M> {
    fn new() -> QueueState<M> {
        QueueState {
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
            let must_resume = std::mem::take(&mut self.is_paused);
            return Some(Ok(Taken { must_resume, slots: std::mem::take(&mut self.in_slots) }));
        }
        let end = std::mem::replace(self.end.as_mut()?, Ok(()));
        Some(end.map(|()| Taken { must_resume: false, slots: 0 }))
    }
}

impl<M: Message> StreamQueue<M> {
    pub(crate) fn new(messages_max: usize, share: Arc<Share>, reset: Reset) -> StreamQueue<M> {
        StreamQueue { state: Mutex::new(QueueState::new()), messages_max, share, reset }
    }

    pub(crate) fn known_reset(&self) -> &Reset {
        &self.reset
    }

    /// Records the socket that fills the queue, or did. Returns `false` if the stream is gone
    /// already.
    pub(super) fn attach(&self, socket: SocketId) -> bool {
        let mut state = self.state.lock();
        state.socket = Some(socket);
        !state.is_abandoned
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        self.state.lock().socket
    }

    /// Appends a message, and wakes the stream.
    pub(super) fn push(&self, mut message: M) -> Pushed {
        let mut state = self.state.lock();
        if state.is_abandoned {
            drop(state);
            drop_contained(message);
            return Pushed::default();
        }
        // A long message lies in several slots.
        let (len, slot_bytes) = (message.bytes().len(), self.share.slot_bytes);
        let slots = len.div_ceil(slot_bytes).max(1);
        let mut copied = None;
        // A socket that is told to pause may receive a few messages more.
        let is_worth_a_copy = is_worth_a_copy(len, slot_bytes, state.in_slots);
        if is_worth_a_copy || !self.share.unread.allows(state.in_slots + slots) {
            let copy = Bytes::copy_from_slice(message.bytes());
            copied = Some(std::mem::replace(message.bytes(), copy));
        } else {
            state.in_slots += slots;
            self.share.unread.add(slots);
        }
        state.arrived.push_back(message);
        let is_full = state.arrived.len() >= self.messages_max
            || !self.share.unread.allows(state.in_slots + 1);
        let must_pause = is_full && !state.is_paused;
        state.is_paused |= must_pause;
        let waker = state.waker.take();
        drop(state);
        let is_copied = copied.is_some();
        // Outside of the lock: a slot that is free wakes others.
        copied.into_iter().for_each(drop_contained);
        // Outside of the lock: the stream takes it at once.
        wake(waker);
        Pushed { must_pause, is_copied }
    }

    /// Records the end of the socket, and wakes the stream. It is no end in good order if a send
    /// was told of a reset.
    pub(super) fn end(&self, end: io::Result<()>) {
        let end = end.and_then(|()| self.reset.error().map_or(Ok(()), Err));
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Moves all messages into `taken`, which is empty; `taken` stays empty at the end.
    ///
    /// Returns the error of the socket once.
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

    /// Counts slots that were taken out as read: what lay in them is handed out.
    pub(crate) fn hand_out(&self, slots: usize) {
        if slots > 0 {
            self.share.unread.sub(slots);
        }
    }

    /// Takes the messages of a connection that ends without an end of its stream.
    pub(crate) fn take_arrived(&self) -> VecDeque<M> {
        let mut state = self.state.lock();
        let slots = std::mem::take(&mut state.in_slots);
        let arrived = std::mem::take(&mut state.arrived);
        drop(state);
        self.hand_out(slots);
        arrived
    }

    /// Drops the messages, because the stream is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        let left = (std::mem::take(&mut state.arrived), state.waker.take());
        let slots = std::mem::take(&mut state.in_slots);
        drop(state);
        self.hand_out(slots);
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
