//! What tasks ask of the engine.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;

use ::tokio::sync::oneshot;

use super::inbox::Inbox;
use crate::buffer::{Buffer, Payload};
use crate::driver::DrainReport;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::uring::SendOptions;

/// A file or socket that the driver reads, writes or sends on, as the tasks know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey(u64);

/// One thing to do.
pub(super) enum Command {
    Receive {
        socket: OwnedFd,
        inbox: Arc<Inbox>,
    },
    Resume {
        inbox: Arc<Inbox>,
    },
    Close {
        inbox: Arc<Inbox>,
    },
    Open {
        key: FileKey,
        file: OwnedFd,
    },
    CloseFile {
        key: FileKey,
    },
    Read {
        key: FileKey,
        buffer: Buffer,
        offset: u64,
        answer: oneshot::Sender<io::Result<Buffer>>,
    },
    Write {
        key: FileKey,
        payload: Payload,
        offset: u64,
        answer: oneshot::Sender<io::Result<()>>,
    },
    Send {
        key: FileKey,
        payload: Payload,
        options: SendOptions,
        answer: oneshot::Sender<io::Result<()>>,
    },
    Shutdown {
        answer: Option<oneshot::Sender<DrainReport>>,
    },
}

/// The commands that the engine has not taken yet.
pub(super) struct Mailbox {
    state: Mutex<State>,
    keys: AtomicU64,
}

struct State {
    commands: Vec<Command>,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn new() -> Mailbox {
        let state = State { commands: Vec::new(), is_closed: false, waker: None };
        Mailbox { state: Mutex::new(state), keys: AtomicU64::new(0) }
    }

    /// Has `waker` woken by whatever comes first. False if something is there already.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        state.commands.is_empty()
    }

    /// A key that no other file has.
    pub(super) fn new_key(&self) -> FileKey {
        // Relaxed: only the number counts.
        FileKey(self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a command in. Cancels it if the engine has ended.
    pub(super) fn post(&self, command: Command) {
        let mut state = self.state.lock();
        if state.is_closed {
            drop(state);
            return command.cancel();
        }
        state.commands.push(command);
        // Whoever put one in before has woken the engine, which has not looked yet.
        let waker = if state.commands.len() == 1 { state.waker.clone() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All commands, into `taken`, which is empty.
    pub(super) fn take(&self, taken: &mut Vec<Command>) {
        std::mem::swap(&mut self.state.lock().commands, taken);
    }

    /// The engine ends: what it has not taken is cancelled, and nothing is accepted any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let left = std::mem::take(&mut state.commands);
        drop(state);
        left.into_iter().for_each(Command::cancel);
    }
}

impl Command {
    /// Tells whoever waits that it will not be done.
    pub(super) fn cancel(self) {
        if let Command::Receive { inbox, .. } = self {
            inbox.end(Err(is_shut_down()));
        }
        // The others have an answer that is dropped, and that tells.
    }
}

/// What is said of everything after the thread has ended.
pub(super) fn is_shut_down() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the pool was shut down")
}
