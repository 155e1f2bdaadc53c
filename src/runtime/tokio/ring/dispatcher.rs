//! The dispatcher: carries commands to the driver, and the driver's events to their tasks.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::mailbox::{Answer, Command, EngineEnd, FileKey, Mailbox};
use super::stream_queue::{Backpressure, StreamQueue, drop_contained};
use crate::buffer::Buffer;
use crate::driver::{
    BufferRingId, DrainReport, Driver, DriverError, Event, FileId, OperationId, SocketId,
    SubmitError,
};
use crate::sync::{Arc, contain};

/// The longest time that a shutdown waits for operations in flight. Cancelled sockets take
/// microseconds; only a device that does not answer takes longer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The streams and tasks that wait for one driver.
///
/// A dispatcher may be dropped on any thread: then each of them gets an error.
pub(super) struct Dispatcher {
    ring: BufferRingId,
    pub(super) mailbox: Arc<Mailbox>,
    streams: IdMap<SocketId, Arc<StreamQueue>>,
    /// The open files, and the errors of those that the driver refused.
    files: IdMap<FileKey, Result<FileId, OpenError>>,
    answers: IdMap<OperationId, OperationAnswer>,
    /// The reason to give to tasks that wait when the engine ends.
    pub(super) end: EngineEnd,
    /// Commands taken out of the mailbox, the first one last; empty between turns.
    commands: Vec<Command>,
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

/// The task that waits for an operation.
enum OperationAnswer {
    Read(Answer<Buffer>),
    Done(Answer<()>),
}

impl OperationAnswer {
    fn fail(self, error: io::Error) {
        match self {
            OperationAnswer::Read(waiting) => answer(waiting, Err(error)),
            OperationAnswer::Done(waiting) => answer(waiting, Err(error)),
        }
    }
}

impl Dispatcher {
    pub(super) fn new(ring: BufferRingId) -> Dispatcher {
        Dispatcher {
            ring,
            mailbox: Arc::new(Mailbox::new()),
            streams: IdMap::new(),
            files: IdMap::new(),
            answers: IdMap::new(),
            end: EngineEnd::ShutDown,
            commands: Vec::new(),
        }
    }

    /// Delivers all events of the driver, then carries out all commands. Returns `Break` after a
    /// shutdown.
    pub(super) fn turn(&mut self, driver: &mut Driver) -> ControlFlow<()> {
        while let Some(event) = driver.next() {
            self.on_event(driver, event);
        }
        self.mailbox.take(&mut self.commands);
        self.commands.reverse();
        while let Some(command) = self.commands.pop() {
            // The commands that are left are cancelled with the engine.
            self.on_command(driver, command)?;
        }
        ControlFlow::Continue(())
    }

    fn on_event(&mut self, driver: &mut Driver, event: Event) {
        match event {
            Event::Received { id, bytes } => {
                let Some(queue) = self.streams.get(id) else { return drop_contained(bytes) };
                if queue.push(bytes) == Backpressure::Pause {
                    log_refusal(driver.pause(id));
                }
            }
            Event::Closed { id, error } => {
                if let Some(queue) = self.streams.remove(id) {
                    queue.end(error.map_or(Ok(()), Err));
                }
            }
            Event::Read { id, result, buffer, .. } => {
                if let Some(OperationAnswer::Read(waiting)) = self.answers.remove(id) {
                    answer(waiting, result.map(|_| buffer));
                }
            }
            Event::Wrote { id, result, payload, .. } | Event::Sent { id, result, payload, .. } => {
                self.finish(id, whole(result, payload.as_ref()));
                drop_contained(payload);
            }
            // Its streams get bytes as soon as slots are free.
            Event::BufferRingEmpty { .. } => {}
            Event::FileClosed { .. } => {}
            Event::Accepted { .. } | Event::AcceptFailed { .. } | Event::Datagram { .. } => {
                unreachable!("a pool has neither listeners nor datagram sockets")
            }
        }
    }

    fn finish(&mut self, id: OperationId, result: io::Result<()>) {
        if let Some(OperationAnswer::Done(waiting)) = self.answers.remove(id) {
            answer(waiting, result);
        }
    }

    fn on_command(&mut self, driver: &mut Driver, command: Command) -> ControlFlow<()> {
        match command {
            Command::Receive { socket, queue } => match driver.receive(self.ring, socket) {
                Ok(id) => self.begin_stream(driver, id, queue),
                Err(refused) => queue.end(Err(refused.into())),
            },
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
                self.begin_operation(key, OperationAnswer::Read(answer), submit);
            }
            Command::Write { key, payload, offset, answer } => {
                let submit = |file| driver.write(file, payload, offset);
                self.begin_operation(key, OperationAnswer::Done(answer), submit);
            }
            Command::Send { key, payload, options, answer } => {
                let submit = |socket| driver.send_with(socket, payload, options);
                self.begin_operation(key, OperationAnswer::Done(answer), submit);
            }
            Command::Shutdown { answer } => {
                shut_down(driver, answer);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn begin_stream(&mut self, driver: &mut Driver, id: SocketId, queue: Arc<StreamQueue>) {
        let is_wanted = queue.attach(id);
        self.streams.insert(id, queue);
        if !is_wanted {
            log_refusal(driver.close(id));
        }
    }

    /// Submits an operation on an open file. Sends the answer at once if that fails.
    fn begin_operation<M>(
        &mut self,
        key: FileKey,
        answer: OperationAnswer,
        submit: impl FnOnce(FileId) -> Result<OperationId, SubmitError<M>>,
    ) {
        let file = match self.files.get(key) {
            Some(&Ok(file)) => file,
            Some(Err(error)) => return answer.fail(error.to_io_error()),
            None => return answer.fail(io::ErrorKind::NotFound.into()),
        };
        match submit(file) {
            Ok(id) => self.answers.insert(id, answer),
            Err(SubmitError { error, memory, .. }) => {
                answer.fail(error.into());
                drop_contained(memory);
            }
        }
    }
}

/// Logs the refusal of a change to a socket. It is closed already, or the kernel refuses to go on,
/// which the next turn sees.
fn log_refusal(result: Result<(), DriverError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "nothing to do for a socket of the pool");
    }
}

fn shut_down(driver: &mut Driver, waiting: Option<Answer<DrainReport>>) {
    let result = driver.drain(SHUTDOWN_TIMEOUT);
    if let Err(error) = &result {
        tracing::error!(%error, "the pool's driver could not be drained");
    }
    if let Some(waiting) = waiting {
        answer(waiting, result.map_err(io::Error::from));
    }
}

/// Sends an answer. Without a task that waits, a buffer in it is dropped, and its slot is free.
fn answer<T>(waiting: Answer<T>, result: io::Result<T>) {
    contain("the waker of an answer", || drop(waiting.send(result)));
}

/// Checks that an operation moved all of its bytes.
fn whole(result: io::Result<usize>, bytes: &[u8]) -> io::Result<()> {
    if result? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // However the engine ends, no task may wait for ever.
        let end = self.end;
        self.mailbox.close(end);
        self.commands.drain(..).rev().for_each(|command| command.cancel(end));
        for queue in self.streams.drain() {
            queue.end(Err(end.error()));
        }
        for waiting in self.answers.drain() {
            waiting.fail(end.error());
        }
    }
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
}

impl<I: Id, T> IdMap<I, T> {
    fn new() -> IdMap<I, T> {
        IdMap { entries: Vec::new() }
    }

    /// Inserts the value of a new id. An older id with the same index names nothing from here on.
    fn insert(&mut self, id: I, value: T) {
        let index = id.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some((id, value));
    }

    fn get(&self, id: I) -> Option<&T> {
        let (known, value) = self.entries.get(id.index())?.as_ref()?;
        (*known == id).then_some(value)
    }

    fn remove(&mut self, id: I) -> Option<T> {
        let entry = self.entries.get_mut(id.index())?;
        entry.take_if(|(known, _)| *known == id).map(|(_, value)| value)
    }

    /// Removes all values.
    fn drain(&mut self) -> impl Iterator<Item = T> {
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
        assert_eq!((map.get(second), map.get((3, 3))), (None, Some(&'c')));
        assert_eq!(map.drain().collect::<Vec<_>>(), ['c']);
    }
}
