//! The commands of tasks to the engine, and the handle that tasks post them by.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::tokio::runtime::{Handle, Id as RuntimeId};
use ::tokio::sync::oneshot;

use super::datagrams::{DatagramCommand, SendMemory};
use super::stream_queue::{Share, StreamQueue};
use crate::buffer::{Buffer, Payload};
use crate::driver::{DrainReport, DriverError, DriverMetrics};
use crate::region::Process;
use crate::runtime::tokio::engine::{EngineEnd, LAST_MOMENT, PoolMetrics, ShutdownReport};
use crate::runtime::tokio::send_queue::{SendQueue, drop_contained};
use crate::slab::{Key, Slab};
use crate::sync::{Arc, Mutex, contain};

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

/// A connection that the engine is to receive from.
pub(crate) struct Receive {
    pub(crate) socket: OwnedFd,
    pub(crate) stream: Arc<StreamQueue>,
    /// The sending side, if there is one.
    pub(crate) half: Option<(FileKey, Arc<SendQueue>)>,
    pub(crate) place: Place,
}

/// One request of a task to the engine.
pub(crate) enum Command {
    Receive(Receive),
    Resume {
        queue: Arc<StreamQueue>,
    },
    /// Tells that the stream is gone.
    Close {
        queue: Arc<StreamQueue>,
    },
    /// Takes a socket from the driver that has nothing left to send, without an end of the
    /// connection.
    GiveBack {
        queue: Arc<StreamQueue>,
        answer: Answer<()>,
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
        answer: Answer<Buffer>,
    },
    Write {
        key: FileKey,
        payload: Payload,
        offset: u64,
        answer: Answer<()>,
    },
    SyncData {
        key: FileKey,
        answer: Answer<()>,
    },
    /// Tells that a queue has sends.
    Send {
        key: FileKey,
    },
    /// Tells that the sender is gone.
    ReleaseSocket {
        key: FileKey,
    },
    /// Concerns a datagram socket, which has its place from the first command on.
    Datagrams {
        command: DatagramCommand,
        place: Option<Place>,
    },
    /// Ends the pool. Without an answer the last handle is gone: what was given to the pool to send
    /// and to write goes out first.
    Shutdown {
        answer: Option<Answer<DrainReport>>,
    },
}

impl Command {
    /// Drops the command undone, so that its task learns of the end of the pool.
    fn cancel(self, reason: EngineEnd) {
        match self {
            Command::Receive(Receive { stream, half, .. }) => {
                if let Some((_, queue)) = half {
                    queue.end_if_open(&reason.error());
                    queue.fail_if_busy(&reason.error());
                }
                stream.end(Err(reason.error()));
            }
            Command::Datagrams { command, .. } => command.cancel(&reason.error()),
            // The other commands have an answer, and its drop wakes their task; or nobody waits.
            _ => {}
        }
    }
}

/// The commands that the engine has not taken yet, and the names of what tasks have open.
pub(crate) struct Mailbox {
    /// The process of the engine. A forked child has a copy of the locks, maybe taken.
    process: Process,
    state: Mutex<MailboxState>,
    names: Mutex<Names>,
}

struct MailboxState {
    commands: Vec<Command>,
    /// Set when the engine takes no further commands.
    end: Option<EngineEnd>,
    waker: Option<Waker>,
    counts: RingCounts,
}

/// The counts of an engine, as of its last turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RingCounts {
    /// The connections that wait for a slot, and how often one had to.
    pub(super) starved: usize,
    pub(super) starvations: u64,
    /// The connections whose sockets are paused.
    pub(super) paused: usize,
    /// The messages that were copied out of their slots.
    pub(super) copied: u64,
    pub(super) driver: DriverMetrics,
}

/// The files and connections that have a name.
struct Names {
    table: Slab<Option<Connection>>,
    /// The connections, reads and writes that there are, and the most of them.
    places: usize,
    places_max: usize,
    /// The runtime that the engine is a task of, which needs no guard.
    of_engine: Option<RuntimeId>,
    /// Other runtimes that connections were made in, and what ends their guard with the pool.
    guarded: Vec<(RuntimeId, oneshot::Sender<()>)>,
}

/// The sending side of a connection.
struct Connection {
    queue: Weak<SendQueue>,
    runtime: RuntimeId,
}

impl Names {
    fn insert(&mut self, connection: Option<Connection>) -> FileKey {
        let key = self.table.insert(connection).ok();
        FileKey(key.expect("more names than the system has descriptors"))
    }
}

/// The place of a connection, a read or a write among those that an engine has room for. Its drop
/// gives the place back.
pub(crate) struct Place(Arc<Mailbox>);

impl Place {
    pub(super) fn take(mailbox: &Arc<Mailbox>) -> Result<Place, DriverError> {
        let mut names = mailbox.names.lock();
        let limit = names.places_max;
        if names.places >= limit {
            return Err(DriverError::TooManyOperations { limit });
        }
        names.places += 1;
        drop(names);
        Ok(Place(Arc::clone(mailbox)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.here().is_ok() {
            self.0.names.lock().places -= 1;
        }
    }
}

impl Mailbox {
    pub(super) fn new(places_max: usize) -> Mailbox {
        let counts = RingCounts::default();
        let state = MailboxState { commands: Vec::new(), end: None, waker: None, counts };
        let names = Names {
            table: Slab::new(Slab::<()>::LIMIT_MAX),
            places: 0,
            places_max,
            of_engine: None,
            guarded: Vec::new(),
        };
        let process = Process::current();
        Mailbox { process, state: Mutex::new(state), names: Mutex::new(names) }
    }

    /// Registers the engine's waker for the next command. Returns `false` if a command is there
    /// already.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let is_known = |state: &MailboxState| {
            let known = state.waker.as_ref();
            known.is_some_and(|known| known.will_wake(waker)).then_some(state.commands.is_empty())
        };
        if let Some(is_empty) = is_known(&self.state.lock()) {
            return is_empty;
        }
        // Cloned and dropped outside of the lock: the last waker of a task may take it with it.
        let waker = waker.clone();
        let mut state = self.state.lock();
        let replaced = state.waker.replace(waker);
        let is_empty = state.commands.is_empty();
        drop(state);
        drop(replaced);
        is_empty
    }

    /// Fails in a forked child of the engine's process.
    fn here(&self) -> Result<(), DriverError> {
        match self.process.other() {
            None => Ok(()),
            Some((of, to)) => Err(DriverError::OtherProcess { of, to }),
        }
    }

    /// Puts a command in, and wakes the engine. Cancels the command if the engine has ended.
    fn post(&self, command: Command) {
        if self.here().is_err() {
            // It holds what belongs to the parent's connections.
            return std::mem::forget(command);
        }
        let mut state = self.state.lock();
        if let Some(reason) = state.end {
            drop(state);
            return command.cancel(reason);
        }
        state.commands.push(command);
        // The task that put the first command in has woken the engine, which has not looked yet.
        // The waker is the engine's own: cloning it runs no code of the user's.
        let waker = if state.commands.len() == 1 { state.waker.clone() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves all commands into `taken`, which is empty, and leaves the counts of the engine.
    pub(super) fn take(&self, taken: &mut Vec<Command>, counts: RingCounts) {
        let mut state = self.state.lock();
        state.counts = counts;
        std::mem::swap(&mut state.commands, taken);
    }

    /// Refuses further commands, and cancels those that the engine has not taken. Connections that
    /// are still open end; those whose sender is gone go on to send what they have.
    pub(super) fn close(&self, reason: EngineEnd) {
        let mut state = self.state.lock();
        state.end.get_or_insert(reason);
        let left = std::mem::take(&mut state.commands);
        drop(state);
        for command in left {
            cancel_contained(command, reason);
        }
        let error = reason.error();
        self.queues(|_| true).iter().for_each(|queue| queue.end_if_open(&error));
    }

    /// Ends every connection: those that are not done are reset.
    pub(super) fn end(&self, reason: EngineEnd) {
        if self.here().is_err() {
            return;
        }
        self.close(reason);
        let error = reason.error();
        self.queues(|_| true).iter().for_each(|queue| queue.fail_if_busy(&error));
        let guarded = std::mem::take(&mut self.names.lock().guarded);
        // Wakes the guards.
        drop(guarded);
    }

    fn queues(&self, is_wanted: impl Fn(RuntimeId) -> bool) -> Vec<Arc<SendQueue>> {
        let names = self.names.lock();
        let connections = names.table.iter().filter_map(|(_, name)| name.as_ref());
        let wanted = connections.filter(|connection| is_wanted(connection.runtime));
        wanted.filter_map(|connection| connection.queue.upgrade()).collect()
    }

    /// Returns the error of everything that is asked after the end.
    fn end_error(&self) -> io::Error {
        self.state.lock().end.unwrap_or(EngineEnd::ShutDown).error()
    }

    /// Notes that the engine is a task of a runtime, and ends the connections itself.
    pub(super) fn engine_is_of(&self, runtime: &Handle) {
        self.names.lock().of_engine = Some(runtime.id());
    }

    /// Takes a name back, which may then be given to another file or connection.
    pub(super) fn forget(&self, key: FileKey) {
        if self.here().is_err() {
            return;
        }
        self.names.lock().table.remove(key.0);
    }
}

/// Cancels a command that another task has posted.
pub(super) fn cancel_contained(command: Command, reason: EngineEnd) {
    contain("a cancelled command", || command.cancel(reason));
}

/// The engine as a pool, its streams and its files share it: the engine ends when the last of them
/// drops the handle.
pub(crate) struct EngineHandle {
    mailbox: Arc<Mailbox>,
    /// The slots that unread messages of its streams hold.
    share: Arc<Share>,
    /// The reason why its ring takes no datagrams, if it does not.
    takes_datagrams: Result<(), DriverError>,
    /// Each datagram socket has a clone.
    datagram_sockets: Arc<()>,
    send_memory: SendMemory,
}

impl EngineHandle {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        share: Share,
        takes_datagrams: Result<(), DriverError>,
        send_memory: SendMemory,
    ) -> EngineHandle {
        let (share, datagram_sockets) = (Arc::new(share), Arc::new(()));
        EngineHandle { mailbox, share, takes_datagrams, datagram_sockets, send_memory }
    }

    pub(crate) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// Ends the pool, and waits for that.
    pub(crate) async fn shutdown(&self) -> io::Result<ShutdownReport> {
        let report = self.ask(|answer| Command::Shutdown { answer: Some(answer) }).await?;
        Ok(report.into())
    }

    /// Fails in a forked child of the engine's process.
    pub(crate) fn here(&self) -> Result<(), DriverError> {
        self.mailbox.here()
    }

    /// Puts a command into the engine's mailbox.
    pub(crate) fn post(&self, command: Command) {
        self.mailbox.post(command);
    }

    /// Posts the command that `build` makes, and waits for its answer.
    pub(crate) async fn ask<T>(&self, build: impl FnOnce(Answer<T>) -> Command) -> io::Result<T> {
        self.here()?;
        let (answer, answered) = oneshot::channel();
        self.post(build(answer));
        answered.await.unwrap_or_else(|_| Err(self.mailbox.end_error()))
    }

    /// Gives a file to the driver. Returns the key that later commands name it by.
    pub(crate) fn open(&self, file: OwnedFd) -> FileKey {
        let key = self.mailbox.names.lock().insert(None);
        self.post(Command::Open { key, file });
        key
    }

    /// Takes a file from the driver.
    pub(crate) fn close(&self, key: FileKey) {
        self.post(Command::CloseFile { key });
        // Posted before: a new file with the same index opens after this one is closed.
        self.mailbox.forget(key);
    }

    /// Takes the place of a connection. Fails if none is left.
    pub(crate) fn take_place(&self) -> Result<Place, DriverError> {
        self.here()?;
        Place::take(&self.mailbox)
    }

    /// Gives the sending side of a connection a name, by which the engine gets to know it with the
    /// connection. The engine ends it with the pool, and when this runtime ends.
    pub(crate) fn register(&self, queue: &Arc<SendQueue>, runtime: &Handle) -> FileKey {
        let connection = Connection { queue: Arc::downgrade(queue), runtime: runtime.id() };
        let key = self.mailbox.names.lock().insert(Some(connection));
        self.guard(runtime);
        let end = self.mailbox.state.lock().end;
        if let Some(reason) = end {
            queue.end_if_open(&reason.error());
        }
        key
    }

    /// Tells the engine that the sender of a connection is gone.
    pub(crate) fn release(&self, key: FileKey) {
        if self.here().is_ok() {
            self.post(Command::ReleaseSocket { key });
        }
    }

    /// Adds what this engine has to the metrics of a pool.
    pub(crate) fn count(&self, metrics: &mut PoolMetrics) {
        if self.here().is_ok() {
            let queues = self.mailbox.queues(|_| true);
            metrics.connections += queues.len();
            // One is the handle's.
            metrics.datagram_sockets += Arc::strong_count(&self.datagram_sockets) - 1;
            metrics.send_bytes += queues.iter().map(|queue| queue.charged()).sum::<usize>();
            let counts = self.mailbox.state.lock().counts;
            metrics.streams_starved += counts.starved;
            metrics.starvations += counts.starvations;
            metrics.streams_paused += counts.paused;
            metrics.copied += counts.copied;
            metrics.driver = counts.driver;
        }
    }

    /// Takes the place of a datagram socket. Fails if none is left, or the ring takes no datagrams.
    pub(crate) fn take_datagram_place(&self) -> Result<Place, DriverError> {
        self.here()?;
        self.takes_datagrams?;
        Place::take(&self.mailbox)
    }

    /// Returns the memory that a send of bytes which are only lent goes out from.
    pub(crate) fn send_memory(&self) -> &SendMemory {
        &self.send_memory
    }

    /// Returns the mark of one datagram socket, which counts until it is dropped.
    pub(crate) fn datagram_socket(&self) -> Arc<()> {
        Arc::clone(&self.datagram_sockets)
    }

    /// Returns the error of everything that is asked after the end.
    pub(crate) fn end_error(&self) -> io::Error {
        self.mailbox.end_error()
    }

    /// Fails if the engine has ended.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.here()?;
        self.mailbox.state.lock().end.map_or(Ok(()), |end| Err(end.error()))
    }

    /// Has a task of the runtime watch for its end, once.
    fn guard(&self, runtime: &Handle) {
        let id = runtime.id();
        let mut names = self.mailbox.names.lock();
        if names.of_engine == Some(id) || names.guarded.iter().any(|(known, _)| *known == id) {
            return;
        }
        let (sender, pool_end) = oneshot::channel();
        names.guarded.push((id, sender));
        drop(names);
        let mailbox = Arc::downgrade(&self.mailbox);
        runtime.spawn(RuntimeGuard { mailbox, runtime: id, pool_end });
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.post(Command::Shutdown { answer: None });
    }
}

/// A task that is dropped with its runtime. Connections that were made in the runtime and have
/// something left to send are reset then: the process may be about to end.
struct RuntimeGuard {
    mailbox: Weak<Mailbox>,
    runtime: RuntimeId,
    pool_end: oneshot::Receiver<()>,
}

impl Future for RuntimeGuard {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.pool_end).poll(context).map(drop)
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        if mailbox.here().is_err() {
            return;
        }
        let is_its = |runtime| runtime == self.runtime;
        let its = |names: &mut Names| -> Vec<_> {
            names.guarded.extract_if(.., |(id, _)| is_its(*id)).collect()
        };
        let known = its(&mut mailbox.names.lock());
        drop_contained(known);
        let mut busy = mailbox.queues(is_its);
        let began = Instant::now();
        loop {
            busy.retain(|queue| !queue.is_idle());
            if busy.is_empty() || began.elapsed() > LAST_MOMENT {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let error = EngineEnd::Runtime.error();
        busy.iter().for_each(|queue| queue.fail_if_busy(&error));
    }
}
