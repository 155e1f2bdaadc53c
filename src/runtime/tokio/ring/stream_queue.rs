//! Where the driver's thread puts what arrives for one stream.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::driver::SocketId;
use crate::sync::Mutex;

/// The meeting point of one socket and its stream.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Messages after which the socket is paused until the stream takes them.
    messages_max: usize,
}

#[derive(Default)]
struct State {
    socket: Option<SocketId>,
    arrived: VecDeque<Bytes>,
    /// The peer has finished, or the socket failed.
    end: Option<Result<(), io::Error>>,
    /// The stream was dropped.
    is_abandoned: bool,
    is_paused: bool,
    waker: Option<Waker>,
}

/// What the driver shall do next with the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    GoOn,
    Pause,
}

/// What a look into the inbox gave.
pub(crate) struct Taken {
    /// The socket was paused, and may go on.
    pub(crate) may_resume: bool,
}

impl Inbox {
    pub(crate) fn new(messages_max: usize) -> Inbox {
        Inbox { state: Mutex::new(State::default()), messages_max }
    }

    /// Notes which socket this is of. False if its stream is gone already.
    pub(crate) fn open(&self, socket: SocketId) -> bool {
        let mut state = self.state.lock();
        state.socket = Some(socket);
        !state.is_abandoned
    }

    pub(crate) fn socket(&self) -> Option<SocketId> {
        self.state.lock().socket
    }

    /// Puts what arrived in, and wakes the stream.
    pub(crate) fn put(&self, bytes: Bytes) -> Wish {
        let (wish, waker) = {
            let mut state = self.state.lock();
            if state.is_abandoned {
                return Wish::GoOn;
            }
            state.arrived.push_back(bytes);
            let is_full = state.arrived.len() >= self.messages_max && !state.is_paused;
            state.is_paused |= is_full;
            (if is_full { Wish::Pause } else { Wish::GoOn }, state.waker.take())
        };
        // Outside of the lock: the stream looks at once.
        if let Some(waker) = waker {
            waker.wake();
        }
        wish
    }

    /// Nothing comes after this.
    pub(crate) fn end(&self, end: io::Result<()>) {
        let waker = {
            let mut state = self.state.lock();
            state.socket = None;
            state.end.get_or_insert(end);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that arrived into `taken`, which is empty. The error, if the socket ended with
    /// one, comes once.
    pub(crate) fn poll_take(
        &self,
        taken: &mut VecDeque<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Taken>> {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.arrived, taken);
        if !taken.is_empty() {
            return Poll::Ready(Ok(Taken { may_resume: std::mem::take(&mut state.is_paused) }));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(
                std::mem::replace(end, Ok(())).map(|()| Taken { may_resume: false }),
            );
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The stream is gone: what it did not take is dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_abandoned = true;
        state.waker = None;
        let arrived = std::mem::take(&mut state.arrived);
        drop(state);
        drop(arrived);
    }
}
