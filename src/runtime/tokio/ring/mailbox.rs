//! The commands of tasks to the engine, and the handle that tasks post them by.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;

use ::tokio::sync::oneshot;

use super::stream_queue::StreamQueue;
use crate::buffer::{Buffer, Payload};
use crate::driver::{DrainReport, DriverError};
use crate::slab::{Key, Slab};
use crate::sync::{Arc, Mutex, contain};
use crate::uring::SendOptions;

/// The sender of a command's result.
pub(crate) type Answer<T> = oneshot::Sender<io::Result<T>>;

/// The name of a file or socket, given out by the tasks' side before the driver opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileKey(Key);

impl FileKey {
    pub(super) fn index(self) -> usize {
        self.0.index() as usize
    }
}

/// One request of a task to the engine.
pub(crate) enum Command {
    Receive { socket: OwnedFd, queue: Arc<StreamQueue> },
    Resume { queue: Arc<StreamQueue> },
    Close { queue: Arc<StreamQueue> },
    Open { key: FileKey, file: OwnedFd },
    CloseFile { key: FileKey },
    Read { key: FileKey, buffer: Buffer, offset: u64, answer: Answer<Buffer> },
    Write { key: FileKey, payload: Payload, offset: u64, answer: Answer<()> },
    Send { key: FileKey, payload: Payload, options: SendOptions, answer: Answer<()> },
    Shutdown { answer: Option<Answer<DrainReport>> },
}

impl Command {
    /// Drops the command undone, so that its task learns of the end of the pool.
    pub(super) fn cancel(self, end: EngineEnd) {
        match self {
            Command::Receive { queue, .. } => queue.end(Err(end.error())),
            // The other commands have an answer, and its drop wakes their task.
            other => drop(contain("the drop of a command", || drop(other))),
        }
    }
}

/// The reason why an engine does nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineEnd {
    ShutDown,
    /// The driver could not go on.
    Failed(DriverError),
    /// The runtime, of one thread, went on on another thread.
    Moved,
    Panicked,
}

impl EngineEnd {
    /// Returns the error of everything that is asked for after this end.
    pub(super) fn error(self) -> io::Error {
        let broken = |text| io::Error::new(io::ErrorKind::BrokenPipe, text);
        match self {
            EngineEnd::ShutDown => broken("the pool was shut down"),
            EngineEnd::Failed(error) => {
                let kind = io::Error::from(error).kind();
                io::Error::new(kind, format!("the pool has failed, and ended: {error}"))
            }
            EngineEnd::Moved => broken(
                "the pool has ended, because its runtime of one thread went on on another thread: build it with `own_thread`",
            ),
            EngineEnd::Panicked => {
                broken("the pool has ended, because its engine panicked: the panic was told before")
            }
        }
    }
}

/// The commands that the engine has not taken yet.
pub(crate) struct Mailbox {
    state: Mutex<State>,
}

struct State {
    commands: Vec<Command>,
    /// The end of the engine, once it has ended.
    end: Option<EngineEnd>,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn new() -> Mailbox {
        let state = State { commands: Vec::new(), end: None, waker: None };
        Mailbox { state: Mutex::new(state) }
    }

    /// Registers the engine's waker for the next command. Returns `false` if a command is there
    /// already.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let is_known = state.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let replaced = if is_known { None } else { state.waker.replace(waker.clone()) };
        let is_empty = state.commands.is_empty();
        drop(state);
        // Outside of the lock: the last waker of a task may take the task with it.
        drop(replaced);
        is_empty
    }

    /// Puts a command in, and wakes the engine. Cancels the command if the engine has ended.
    fn post(&self, command: Command) {
        let mut state = self.state.lock();
        if let Some(end) = state.end {
            drop(state);
            return command.cancel(end);
        }
        state.commands.push(command);
        // The task that put the first command in has woken the engine, which has not looked yet.
        let waker = if state.commands.len() == 1 { state.waker.clone() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves all commands into `taken`, which is empty.
    pub(super) fn take(&self, taken: &mut Vec<Command>) {
        std::mem::swap(&mut self.state.lock().commands, taken);
    }

    /// Refuses further commands, and cancels the commands that the engine has not taken.
    pub(super) fn close(&self, end: EngineEnd) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let left = std::mem::take(&mut state.commands);
        drop(state);
        left.into_iter().for_each(|command| command.cancel(end));
    }

    /// Returns the error of an engine that has ended, or is about to.
    fn end_error(&self) -> io::Error {
        let end = self.state.lock().end;
        end.unwrap_or(EngineEnd::ShutDown).error()
    }
}

/// The engine as a pool, its streams and its files share it: the engine ends when the last of them
/// drops the handle.
pub(crate) struct EngineHandle {
    mailbox: Arc<Mailbox>,
    /// The files that tasks have open.
    files: Mutex<Slab<()>>,
}

impl EngineHandle {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> EngineHandle {
        EngineHandle { mailbox, files: Mutex::new(Slab::new(Slab::<()>::LIMIT_MAX)) }
    }

    /// Puts a command into the engine's mailbox.
    pub(crate) fn post(&self, command: Command) {
        self.mailbox.post(command);
    }

    /// Posts the command that `build` makes, and waits for its answer.
    pub(crate) async fn ask<T>(&self, build: impl FnOnce(Answer<T>) -> Command) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.post(build(answer));
        answered.await.unwrap_or_else(|_| Err(self.end_error()))
    }

    /// Returns the error of an answer that never comes, because the engine has ended.
    pub(crate) fn end_error(&self) -> io::Error {
        self.mailbox.end_error()
    }

    /// Gives a file or socket to the driver. Returns the key that later commands name it by.
    pub(crate) fn open(&self, file: OwnedFd) -> FileKey {
        let key = self.files.lock().insert(()).expect("more keys than the system has descriptors");
        self.post(Command::Open { key: FileKey(key), file });
        FileKey(key)
    }

    /// Takes a file or socket from the driver.
    pub(crate) fn close(&self, key: FileKey) {
        self.post(Command::CloseFile { key });
        // Posted before: a new file with the same index opens after this one is closed.
        self.files.lock().remove(key.0);
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.post(Command::Shutdown { answer: None });
    }
}
