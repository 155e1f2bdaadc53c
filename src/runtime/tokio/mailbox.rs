//! What tasks ask of the driver's thread.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;

use ::tokio::sync::oneshot;

use super::inbox::Inbox;
use crate::buffer::Buffer;
use crate::driver::Drained;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::uring::{Payload, SendOptions};

/// A file or socket that the driver reads, writes or sends on, as the tasks know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey(u64);

/// One thing to do.
pub(super) enum Command {
    Receive { socket: OwnedFd, inbox: Arc<Inbox> },
    Resume { inbox: Arc<Inbox> },
    Close { inbox: Arc<Inbox> },
    Open { key: FileKey, file: OwnedFd },
    CloseFile { key: FileKey },
    Read { key: FileKey, buffer: Buffer, offset: u64, answer: oneshot::Sender<io::Result<Buffer>> },
    Write { key: FileKey, payload: Payload, offset: u64, answer: oneshot::Sender<io::Result<()>> },
    Send { key: FileKey, payload: Payload, options: SendOptions, answer: oneshot::Sender<io::Result<()>> },
    Shutdown { answer: Option<oneshot::Sender<Drained>> },
}

/// The commands that the driver's thread has not taken yet.
pub(super) struct Mailbox {
    commands: Mutex<Option<Vec<Command>>>,
    keys: AtomicU64,
    waker: Waker,
}

impl Mailbox {
    /// A mailbox whose owner is woken by `waker`.
    pub(super) fn new(waker: Waker) -> Mailbox {
        Mailbox { commands: Mutex::new(Some(Vec::new())), keys: AtomicU64::new(0), waker }
    }

    /// A key that no other file has.
    pub(super) fn new_key(&self) -> FileKey {
        // Relaxed: only the number counts.
        FileKey(self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a command in. Cancels it if the thread has ended.
    pub(super) fn post(&self, command: Command) {
        let mut commands = self.commands.lock();
        let Some(waiting) = commands.as_mut() else {
            drop(commands);
            return command.cancel();
        };
        waiting.push(command);
        let is_first = waiting.len() == 1;
        drop(commands);
        // Whoever put one in before has woken the thread, which has not looked yet.
        if is_first {
            self.waker.wake_by_ref();
        }
    }

    /// All commands, into `taken`, which is empty.
    pub(super) fn take(&self, taken: &mut Vec<Command>) {
        if let Some(waiting) = self.commands.lock().as_mut() {
            std::mem::swap(waiting, taken);
        }
    }

    /// The thread ends: what it has not taken is cancelled, and nothing is accepted any more.
    pub(super) fn close(&self) {
        let left = self.commands.lock().take();
        left.into_iter().flatten().for_each(Command::cancel);
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
