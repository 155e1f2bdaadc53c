//! The queue between the driver and one stream of received bytes.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::driver::SocketId;
use crate::runtime::tokio::send_queue::{Reset, drop_contained};
use crate::sync::{Mutex, contain};

/// The messages that arrived on one socket and that its stream has not taken.
pub(crate) struct StreamQueue {
    state: Mutex<State>,
    /// Slots of messages after which the socket is paused until the stream takes them. A copy of a
    /// short message counts as one.
    slots_max: usize,
    slot_bytes: usize,
    /// The reset of the connection, if the sending side was told of one.
    reset: Reset,
}

#[derive(Default)]
struct State {
    socket: Option<SocketId>,
    arrived: VecDeque<Bytes>,
    /// The slots that the messages keep, and the copies among them.
    slots: usize,
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

impl State {
    /// Moves all messages into `taken`, or takes the end. Returns `None` if neither has come.
    fn take(&mut self, taken: &mut VecDeque<Bytes>) -> Option<io::Result<Backpressure>> {
        std::mem::swap(&mut self.arrived, taken);
        self.slots = 0;
        if !taken.is_empty() {
            let was_paused = std::mem::take(&mut self.is_paused);
            return Some(Ok(if was_paused {
                Backpressure::Resume
            } else {
                Backpressure::Unchanged
            }));
        }
        let end = std::mem::replace(self.end.as_mut()?, Ok(()));
        Some(end.map(|()| Backpressure::Unchanged))
    }
}

impl StreamQueue {
    pub(crate) fn new(slots_max: usize, slot_bytes: usize, reset: Reset) -> StreamQueue {
        StreamQueue { state: Mutex::new(State::default()), slots_max, slot_bytes, reset }
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
    pub(super) fn push(&self, bytes: Bytes) -> Backpressure {
        let mut state = self.state.lock();
        if state.is_abandoned {
            drop(state);
            drop_contained(bytes);
            return Backpressure::Unchanged;
        }
        state.slots += bytes.len().div_ceil(self.slot_bytes).max(1);
        state.arrived.push_back(bytes);
        let is_full = state.slots >= self.slots_max && !state.is_paused;
        state.is_paused |= is_full;
        let waker = state.waker.take();
        drop(state);
        // Outside of the lock: the stream takes it at once.
        wake(waker);
        if is_full { Backpressure::Pause } else { Backpressure::Unchanged }
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
    /// Returns [`Backpressure::Resume`] if the socket was paused. Returns the error of the socket
    /// once.
    pub(crate) fn poll_take(
        &self,
        taken: &mut VecDeque<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Backpressure>> {
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

    /// Drops the messages, because the stream is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        let left = (std::mem::take(&mut state.arrived), state.waker.take());
        drop(state);
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
