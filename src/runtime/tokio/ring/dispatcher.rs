//! The dispatcher: carries commands to the driver, and the driver's events to their tasks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::mailbox::{Answer, Command, FileKey, Mailbox, cancel_contained};
use super::stream_queue::{Backpressure, StreamQueue};
use crate::buffer::Buffer;
use crate::driver::{
    BufferRingId, DrainReport, Driver, DriverError, Event, FileId, OperationId, SocketId,
    SubmitError, TransferError,
};
use crate::runtime::tokio::engine::{EngineEnd, LAST_MOMENT, LINGER};
use crate::runtime::tokio::send_queue::{QueuedSend, SendQueue, drop_contained};
use crate::sync::{Arc, contain};

/// The time that the kernel is given to let go of what is cancelled. Sockets take microseconds;
/// only a device that does not answer takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The most sends of one connection that the driver has at a time. More stay in their queue.
const SENDS_AHEAD: usize = 64;

/// The streams and tasks that wait for one driver.
///
/// A dispatcher may be dropped on any thread: then each of them gets an error.
pub(super) struct Dispatcher {
    ring: BufferRingId,
    pub(super) mailbox: Arc<Mailbox>,
    streams: IdMap<SocketId, Arc<StreamQueue>>,
    /// The open files, and the errors of those that the driver refused.
    files: IdMap<FileKey, Result<FileId, OpenError>>,
    senders: IdMap<FileKey, Sender>,
    answers: IdMap<OperationId, OperationAnswer>,
    /// Commands taken out of the mailbox, the first one last; empty between turns.
    commands: Vec<Command>,
    /// The most streams, reads and writes together, and the most senders: as the user asked.
    operations_max: usize,
    reads: usize,
    writes: usize,
    sends: usize,
    /// Senders whose next send the driver could not take for now.
    stalled: Vec<FileKey>,
    ending: Option<Ending>,
    /// Everything was cancelled.
    is_ended: bool,
    /// The streams that ended since.
    closed: usize,
    /// The reason to give to tasks that wait when the engine ends.
    pub(super) end: EngineEnd,
}

/// The error of a file that could not be opened: its number, if it is the system's, and its kind.
#[derive(Clone, Copy)]
struct OpenError {
    errno: Option<i32>,
    kind: io::ErrorKind,
}

impl OpenError {
    fn new(error: &io::Error) -> OpenError {
        OpenError { errno: error.raw_os_error(), kind: error.kind() }
    }

    fn to_io_error(self) -> io::Error {
        self.errno.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

/// The sending side of a connection.
struct Sender {
    queue: Arc<SendQueue>,
    file: FileId,
    /// The sends that the driver has.
    under_way: usize,
    /// The half is gone: the file is closed after the last send.
    is_released: bool,
}

/// The end of a pool that is under way.
struct Ending {
    answer: Option<Answer<DrainReport>>,
    /// The moment by which this stage of the end is over. The end of a pool without handles lingers
    /// without one.
    deadline: Option<Instant>,
}

/// The task that waits for an operation.
enum OperationAnswer {
    Read(Answer<Buffer>),
    Written(Answer<()>),
    Sent { sender: FileKey, number: u64 },
}

impl Dispatcher {
    /// Makes the dispatcher of a driver that has room for three times `operations_max` operations.
    pub(super) fn new(ring: BufferRingId, operations_max: usize) -> Dispatcher {
        Dispatcher {
            ring,
            mailbox: Arc::new(Mailbox::new(operations_max)),
            streams: IdMap::new(),
            files: IdMap::new(),
            senders: IdMap::new(),
            answers: IdMap::new(),
            commands: Vec::new(),
            operations_max,
            reads: 0,
            writes: 0,
            sends: 0,
            stalled: Vec::new(),
            ending: None,
            is_ended: false,
            closed: 0,
            end: EngineEnd::Runtime,
        }
    }

    /// Delivers all events of the driver, then carries out all commands. Returns `true` when a
    /// stage of the pool's end is over: first what was left behind has gone out, and after
    /// [`begin_drain`](Self::begin_drain) all operations have come back.
    pub(super) fn turn(&mut self, driver: &mut Driver) -> bool {
        while let Some(event) = driver.next() {
            self.on_event(driver, event);
        }
        for key in std::mem::take(&mut self.stalled) {
            self.send_queued(driver, key);
            self.close_if_done(driver, key);
        }
        self.mailbox.take(&mut self.commands, driver.metrics());
        self.commands.reverse();
        while let Some(command) = self.commands.pop() {
            match self.ending {
                None => self.on_command(driver, command),
                Some(_) => cancel_contained(command, EngineEnd::ShutDown),
            }
        }
        self.is_over()
    }

    fn on_event(&mut self, driver: &mut Driver, event: Event) {
        match event {
            Event::Received { id, bytes, .. } => {
                let Some(queue) = self.streams.get(id) else { return drop_contained(bytes) };
                if queue.push(bytes) == Backpressure::Pause {
                    log_refusal(driver.pause(id));
                }
            }
            Event::Closed { id, error, .. } => {
                let Some(queue) = self.streams.remove(id) else { return };
                self.closed += 1;
                let was_closed_by_us = self.is_ended.then(|| EngineEnd::ShutDown.error());
                queue.end(error.or(was_closed_by_us).map_or(Ok(()), Err));
            }
            Event::Read { id, result, buffer, .. } => {
                if let Some(OperationAnswer::Read(answer)) = self.answers.remove(id) {
                    self.reads -= 1;
                    tell(answer, result.map(|_| buffer).map_err(|error| self.cause(error)));
                }
            }
            Event::Wrote { id, result, payload, .. } => {
                let result = whole(result, payload.as_ref());
                drop_contained(payload);
                if let Some(OperationAnswer::Written(answer)) = self.answers.remove(id) {
                    self.writes -= 1;
                    tell(answer, result.map_err(|error| self.cause(error)));
                }
            }
            Event::Sent { id, result, payload, .. } => {
                let result = whole(result, payload.as_ref());
                drop_contained(payload);
                if let Some(OperationAnswer::Sent { sender, number }) = self.answers.remove(id) {
                    self.on_sent(driver, sender, number, result);
                }
            }
            // Its streams get bytes as soon as slots are free.
            Event::BufferRingEmpty { .. } => {}
            Event::FileClosed { .. } => {}
            _ => unreachable!("a pool does nothing else"),
        }
    }

    fn on_command(&mut self, driver: &mut Driver, command: Command) {
        match command {
            Command::Receive { socket, queue } => self.receive(driver, socket, queue),
            Command::Resume { queue } => {
                if let Some(id) = queue.socket() {
                    log_refusal(driver.resume(id));
                }
            }
            Command::Close { queue } => {
                if let Some(id) = queue.socket() {
                    log_refusal(driver.close(id));
                }
            }
            Command::Open { key, file } => {
                // Its operations get the error.
                let opened = driver.add_file(file).map_err(|error| OpenError::new(&error.into()));
                self.files.insert(key, opened);
            }
            Command::CloseFile { key } => {
                if let Some(Ok(id)) = self.files.remove(key) {
                    log_refusal(driver.close_file(id));
                }
            }
            Command::Read { key, buffer, offset, answer } => {
                let submit = |file| driver.read(file, buffer, offset);
                if let Some((id, answer)) = self.submit(key, answer, submit) {
                    self.reads += 1;
                    self.answers.insert(id, OperationAnswer::Read(answer));
                }
            }
            Command::Write { key, payload, offset, answer } => {
                let submit = |file| driver.write(file, payload, offset);
                if let Some((id, answer)) = self.submit(key, answer, submit) {
                    self.writes += 1;
                    self.answers.insert(id, OperationAnswer::Written(answer));
                }
            }
            Command::OpenSocket { key, socket, queue } => {
                self.open_sender(driver, key, socket, queue);
            }
            Command::Send { key } => self.send_queued(driver, key),
            Command::ReleaseSocket { key } => {
                match self.senders.get_mut(key) {
                    Some(sender) => sender.is_released = true,
                    None => self.mailbox.forget(key),
                }
                self.close_if_done(driver, key);
            }
            Command::Shutdown { answer } => self.begin_end(driver, answer),
        }
    }

    fn receive(&mut self, driver: &mut Driver, socket: OwnedFd, queue: Arc<StreamQueue>) {
        let received = match self.check_room() {
            Ok(()) => driver.receive(self.ring, socket).map_err(|refused| refused.error),
            Err(error) => Err(error),
        };
        match received {
            Ok(id) => {
                let is_wanted = queue.attach(id);
                self.streams.insert(id, queue);
                if !is_wanted {
                    log_refusal(driver.close(id));
                }
            }
            Err(error) => queue.end(Err(error.into())),
        }
    }

    /// Checks that the share of streams, reads and writes has room.
    fn check_room(&self) -> Result<(), DriverError> {
        let limit = self.operations_max;
        match self.streams.len() + self.reads + self.writes < limit {
            true => Ok(()),
            false => Err(DriverError::TooManyOperations { limit }),
        }
    }

    /// Returns what a task is told of a read or write that failed: the end of the pool if that is
    /// why.
    fn cause(&self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::ECANCELED) if self.is_ended => EngineEnd::ShutDown.error(),
            _ => error,
        }
    }

    /// Submits a read or write. Tells the task at once if that fails.
    fn submit<T, M>(
        &mut self,
        key: FileKey,
        answer: Answer<T>,
        submit: impl FnOnce(FileId) -> Result<OperationId, SubmitError<M>>,
    ) -> Option<(OperationId, Answer<T>)> {
        let refused = match (self.files.get(key), self.check_room()) {
            (None, _) => io::ErrorKind::NotFound.into(),
            (Some(Err(error)), _) => error.to_io_error(),
            (_, Err(error)) => error.into(),
            (Some(&Ok(file)), Ok(())) => match submit(file) {
                Ok(id) => return Some((id, answer)),
                Err(SubmitError { error, memory, .. }) => {
                    drop_contained(memory);
                    error.into()
                }
            },
        };
        tell(answer, Err(refused));
        None
    }
}

/// Sends.
impl Dispatcher {
    fn open_sender(
        &mut self,
        driver: &mut Driver,
        key: FileKey,
        socket: OwnedFd,
        queue: Arc<SendQueue>,
    ) {
        match driver.add_file(socket) {
            Ok(file) => {
                let sender = Sender { queue, file, under_way: 0, is_released: false };
                self.senders.insert(key, sender);
                self.send_queued(driver, key);
            }
            Err(error) => queue.fail(&error.into()),
        }
    }

    /// Gives the driver what a connection has queued, as far as its share of operations goes.
    fn send_queued(&mut self, driver: &mut Driver, key: FileKey) {
        while let Some(sender) = self.senders.get_mut(key) {
            // Each sender may have one send under way: so none waits for the peer of another.
            let may_send = match sender.under_way {
                0 => true,
                under_way => under_way < SENDS_AHEAD && self.sends < self.operations_max,
            };
            if !may_send {
                return;
            }
            let Some(QueuedSend { number, payload, options }) = sender.queue.next() else { return };
            match driver.send_with(sender.file, payload, options) {
                Ok(id) => {
                    sender.under_way += 1;
                    self.sends += 1;
                    self.answers.insert(id, OperationAnswer::Sent { sender: key, number });
                }
                Err(SubmitError { error, memory: payload, .. }) => {
                    sender.queue.put_back(QueuedSend { number, payload, options });
                    match is_passing(&error) {
                        true => self.stalled.push(key),
                        false => sender.queue.fail(&error.into()),
                    }
                    return;
                }
            }
        }
    }

    fn on_sent(&mut self, driver: &mut Driver, key: FileKey, number: u64, result: io::Result<()>) {
        self.sends -= 1;
        let Some(sender) = self.senders.get_mut(key) else { return };
        sender.under_way -= 1;
        match result {
            Ok(()) => sender.queue.sent(number),
            Err(error) => sender.queue.fail(&error),
        }
        self.send_queued(driver, key);
        self.close_if_done(driver, key);
    }

    /// Closes the socket of a sender that is gone and has nothing left to send.
    fn close_if_done(&mut self, driver: &mut Driver, key: FileKey) {
        let Some(sender) = self.senders.get(key) else { return };
        if sender.is_released && sender.under_way == 0 && sender.queue.is_idle() {
            log_refusal(driver.close_file(sender.file));
            self.senders.remove(key);
            self.mailbox.forget(key);
        }
    }
}

/// The end.
impl Dispatcher {
    /// Begins to end the pool: takes no further commands, and lets what the tasks have left behind
    /// go out.
    fn begin_end(&mut self, driver: &mut Driver, answer: Option<Answer<DrainReport>>) {
        let deadline = answer.as_ref().map(|_| Instant::now() + LINGER);
        self.ending = Some(Ending { answer, deadline });
        self.mailbox.close(EngineEnd::ShutDown);
        // A command that tells of sends may have been refused just now.
        for key in self.senders.ids() {
            self.send_queued(driver, key);
        }
    }

    /// Returns whether this stage of the pool's end is over: nothing is left to go out, or to come
    /// back, or the time is over.
    fn is_over(&self) -> bool {
        let Some(ending) = &self.ending else { return false };
        if ending.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return true;
        }
        if self.is_ended {
            return self.streams.len() + self.answers.len() == 0;
        }
        let writes = if ending.deadline.is_none() { self.writes } else { 0 };
        writes == 0 && self.senders.iter().all(|sender| sender.queue.is_idle())
    }

    /// Returns the moment by which this stage of the pool's end is over, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref().and_then(|ending| ending.deadline)
    }

    /// Ends every connection and cancels every operation. The turns until that is over bring them
    /// back, so that what they hold is dropped here.
    pub(super) fn begin_drain(&mut self, driver: &mut Driver) {
        self.mailbox.end(EngineEnd::ShutDown);
        self.is_ended = true;
        self.closed = 0;
        for id in self.streams.ids() {
            log_refusal(driver.close(id));
        }
        for id in self.answers.ids() {
            log_refusal(driver.cancel_operation(id));
        }
        let none = || Ending { answer: None, deadline: None };
        let deadline = Some(Instant::now() + DRAIN_TIMEOUT);
        self.ending.get_or_insert_with(none).deadline = deadline;
    }

    /// Gives what is left to send a last moment: a message or two go out, and a peer that does not
    /// read is not waited for.
    pub(super) fn send_last(&mut self, driver: &mut Driver) {
        let began = Instant::now();
        while began.elapsed() < LAST_MOMENT {
            self.turn(driver);
            let is_busy = self.senders.iter().any(|sender| !sender.queue.is_idle());
            if self.is_ended || !is_busy || driver.wait_timeout(LAST_MOMENT / 20).is_err() {
                return;
            }
        }
    }

    /// Lets the end of the pool wait no longer.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.deadline = Some(Instant::now());
        }
    }

    /// Answers who asked for the end.
    pub(super) fn finish(&mut self, mut report: Result<DrainReport, DriverError>) {
        if let Ok(report) = &mut report {
            report.closed += self.closed;
        }
        if let Err(error) = &report {
            tracing::error!(%error, "the pool's driver could not be drained");
        }
        if let Some(answer) = self.ending.as_mut().and_then(|ending| ending.answer.take()) {
            tell(answer, report.map_err(io::Error::from));
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // However the engine ends, no task may wait for ever.
        let end = self.end;
        self.mailbox.end(end);
        self.commands.drain(..).rev().for_each(|command| cancel_contained(command, end));
        for queue in self.streams.drain() {
            queue.end(Err(self.end.error()));
        }
        self.answers.drain().for_each(drop_contained);
        self.ending.take().into_iter().for_each(drop_contained);
    }
}

/// Tells a task the result of its command. Without a task that waits the result is dropped.
fn tell<T>(answer: Answer<T>, result: io::Result<T>) {
    contain("an answer", || drop(answer.send(result)));
}

/// Logs the refusal of a change to a socket. It is closed already, or the kernel refuses to go on,
/// which the next turn sees.
fn log_refusal(result: Result<(), DriverError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "nothing to do for a socket of the pool");
    }
}

/// Returns whether a send that was refused may be taken later.
fn is_passing(error: &TransferError) -> bool {
    let TransferError::Driver(error) = error else { return false };
    matches!(
        error,
        DriverError::TooManyOperations { .. } | DriverError::System { errno: libc::EBUSY, .. }
    )
}

/// Checks that an operation moved all of its bytes.
fn whole(result: io::Result<usize>, bytes: &[u8]) -> io::Result<()> {
    if result? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// An id with a small index that no other live id of the same table has.
trait Id: Copy + Eq {
    fn index(self) -> usize;
}

impl Id for SocketId {
    fn index(self) -> usize {
        SocketId::index(self)
    }
}

impl Id for FileKey {
    fn index(self) -> usize {
        FileKey::index(self)
    }
}

impl Id for OperationId {
    fn index(self) -> usize {
        OperationId::index(self)
    }
}

/// The values of the live ids of one table, by index.
///
/// The whole id is compared, so an id of another driver, or of an object that is gone, names
/// nothing.
struct IdMap<I, T> {
    entries: Vec<Option<(I, T)>>,
    len: usize,
}

impl<I: Id, T> IdMap<I, T> {
    fn new() -> IdMap<I, T> {
        IdMap { entries: Vec::new(), len: 0 }
    }

    /// Inserts the value of a new id. An older id with the same index names nothing from here on.
    fn insert(&mut self, id: I, value: T) {
        let index = id.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let known = self.entries[index].replace((id, value));
        self.len += usize::from(known.is_none());
    }

    /// Returns the number of values.
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, id: I) -> Option<&T> {
        let (known, value) = self.entries.get(id.index())?.as_ref()?;
        (*known == id).then_some(value)
    }

    fn get_mut(&mut self, id: I) -> Option<&mut T> {
        let (known, value) = self.entries.get_mut(id.index())?.as_mut()?;
        (*known == id).then_some(value)
    }

    fn remove(&mut self, id: I) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        let (_, value) = entry.take_if(|(known, _)| *known == id)?;
        self.len -= 1;
        Some(value)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten().map(|(_, value)| value)
    }

    fn ids(&self) -> Vec<I> {
        self.entries.iter().flatten().map(|(id, _)| *id).collect()
    }

    /// Removes all values.
    fn drain(&mut self) -> impl Iterator<Item = T> {
        self.len = 0;
        self.entries.drain(..).flatten().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index, and what tells the ids of one index apart: the generation, or the driver.
    type TestId = (usize, u32);

    impl Id for TestId {
        fn index(self) -> usize {
            self.0
        }
    }

    #[test]
    fn an_id_of_something_gone_or_of_another_driver_names_nothing() {
        let mut map = IdMap::new();
        let (first, second, foreign) = ((3, 1), (3, 2), (3, 9));
        map.insert(first, 'a');
        assert_eq!((map.get(first), map.get(second)), (Some(&'a'), None));
        assert_eq!((map.remove(foreign), map.get((7, 1))), (None, None));
        assert_eq!(map.remove(first), Some('a'));
        assert_eq!(map.remove(first), None);
        map.insert(second, 'b');
        assert_eq!(map.get(first), None);
        assert_eq!(map.remove(first), None);
        assert_eq!(map.get(second), Some(&'b'));
        // The object of `second` ended unseen; its index is used again.
        map.insert((3, 3), 'c');
        assert_eq!(map.len(), 1);
        assert_eq!((map.get(second), map.get((3, 3))), (None, Some(&'c')));
        assert_eq!(map.drain().collect::<Vec<_>>(), ['c']);
    }
}
