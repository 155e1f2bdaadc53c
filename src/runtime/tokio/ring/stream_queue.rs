//! The queue between the driver and one stream of received bytes.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::driver::SocketId;
use crate::sync::{Mutex, contain};

/// The messages that arrived on one socket and that its stream has not taken.
pub(crate) struct StreamQueue {
    state: Mutex<State>,
    /// Messages after which the socket is paused until the stream takes them.
    messages_max: usize,
}

#[derive(Default)]
struct State {
    socket: Option<SocketId>,
    arrived: VecDeque<Bytes>,
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

impl StreamQueue {
    pub(crate) fn new(messages_max: usize) -> StreamQueue {
        StreamQueue { state: Mutex::new(State::default()), messages_max }
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
        let (is_full, waker) = {
            let mut state = self.state.lock();
            if state.is_abandoned {
                drop(state);
                drop_contained(bytes);
                return Backpressure::Unchanged;
            }
            state.arrived.push_back(bytes);
            let is_full = state.arrived.len() >= self.messages_max && !state.is_paused;
            state.is_paused |= is_full;
            (is_full, state.waker.take())
        };
        // Outside of the lock: the stream takes it at once.
        wake(waker);
        if is_full { Backpressure::Pause } else { Backpressure::Unchanged }
    }

    /// Records the end of the socket, and wakes the stream.
    pub(super) fn end(&self, end: io::Result<()>) {
        let waker = {
            let mut state = self.state.lock();
            state.socket = None;
            state.end.get_or_insert(end);
            state.waker.take()
        };
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
        std::mem::swap(&mut state.arrived, taken);
        if !taken.is_empty() {
            let was_paused = std::mem::take(&mut state.is_paused);
            let change = if was_paused { Backpressure::Resume } else { Backpressure::Unchanged };
            return Poll::Ready(Ok(change));
        }
        if let Some(end) = &mut state.end {
            let end = std::mem::replace(end, Ok(()));
            return Poll::Ready(end.map(|()| Backpressure::Unchanged));
        }
        let waker = context.waker();
        if state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return Poll::Pending;
        }
        drop(state);
        // Cloned and dropped outside of the lock: a waker may run anything, and the last one of a
        // task may take the task with it.
        let new = waker.clone();
        let mut state = self.state.lock();
        let replaced = state.waker.replace(new);
        // What came meanwhile woke nobody.
        let has_news = !state.arrived.is_empty() || state.end.is_some();
        drop(state);
        drop(replaced);
        if has_news { self.poll_take(taken, context) } else { Poll::Pending }
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

/// Drops memory of the program's. Its owner may panic, or the waker of a claim that got its slot:
/// that harms neither the engine nor other streams.
pub(super) fn drop_contained<M>(memory: M) {
    contain("the drop of a payload", || drop(memory));
}

/// Wakes the task of a stream. A waker that panics harms neither the engine nor other streams.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        contain("the waker of a stream", || waker.wake());
    }
}
