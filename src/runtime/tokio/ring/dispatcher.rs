//! The dispatcher: carries commands to the driver, and the driver's events to their tasks.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::mailbox::{Answer, Command, FileKey, Mailbox, shut_down_error};
use super::stream_queue::{Backpressure, StreamQueue};
use crate::buffer::Buffer;
use crate::driver::{
    BufferRingId, DrainReport, Driver, DriverError, Event, FileId, OperationId, SocketId,
    SubmitError,
};
use crate::sync::Arc;

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
    files: IdMap<FileKey, FileId>,
    answers: IdMap<OperationId, OperationAnswer>,
    /// Commands taken out of the mailbox; empty between turns.
    commands: Vec<Command>,
}

/// The task that waits for an operation.
enum OperationAnswer {
    Read(Answer<Buffer>),
    Done(Answer<()>),
}

impl OperationAnswer {
    fn fail(self, error: io::Error) {
        // A task that does not wait any more needs no error.
        let _ = match self {
            OperationAnswer::Read(answer) => answer.send(Err(error)).is_ok(),
            OperationAnswer::Done(answer) => answer.send(Err(error)).is_ok(),
        };
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
            commands: Vec::new(),
        }
    }

    /// Delivers all events of the driver, then carries out all commands. Returns `Break` after a
    /// shutdown.
    pub(super) fn turn(&mut self, driver: &mut Driver) -> ControlFlow<()> {
        while let Some(event) = driver.next() {
            self.on_event(driver, event);
        }
        let mut commands = std::mem::take(&mut self.commands);
        self.mailbox.take(&mut commands);
        let mut flow = ControlFlow::Continue(());
        for command in commands.drain(..) {
            match flow {
                ControlFlow::Continue(()) => flow = self.on_command(driver, command),
                ControlFlow::Break(()) => command.cancel(),
            }
        }
        self.commands = commands;
        flow
    }

    fn on_event(&mut self, driver: &mut Driver, event: Event) {
        match event {
            Event::Received { id, bytes } => {
                let Some(queue) = self.streams.get(id) else { return };
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
                if let Some(OperationAnswer::Read(answer)) = self.answers.remove(id) {
                    // Without a task that waits the buffer is dropped, and its slot is free.
                    let _ = answer.send(result.map(|_| buffer));
                }
            }
            Event::Wrote { id, result, payload, .. } => {
                self.finish(id, whole(result, payload.as_ref()));
            }
            Event::Sent { id, result, payload, .. } => {
                self.finish(id, whole(result, payload.as_ref()));
            }
            Event::FileClosed { .. } => {}
            Event::Accepted { .. } | Event::AcceptFailed { .. } | Event::Datagram { .. } => {
                unreachable!("a pool has neither listeners nor datagram sockets")
            }
        }
    }

    fn finish(&mut self, id: OperationId, result: io::Result<()>) {
        if let Some(OperationAnswer::Done(answer)) = self.answers.remove(id) {
            let _ = answer.send(result);
        }
    }

    fn on_command(&mut self, driver: &mut Driver, command: Command) -> ControlFlow<()> {
        match command {
            Command::Receive { socket, queue } => match driver.receive(self.ring, socket) {
                Ok(id) => self.begin_stream(driver, id, queue),
                Err(refused) => queue.end(Err(io::Error::other(refused.error))),
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
            Command::Open { key, file } => match driver.add_file(file) {
                Ok(id) => self.files.insert(key, id),
                // Its operations will find no file.
                Err(error) => tracing::warn!(%error, "a file could not be opened for the pool"),
            },
            Command::CloseFile { key } => {
                if let Some(id) = self.files.remove(key) {
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
        let Some(&file) = self.files.get(key) else {
            let why = "the pool has no such file open: its descriptor was refused";
            return answer.fail(io::Error::new(io::ErrorKind::NotFound, why));
        };
        match submit(file) {
            Ok(id) => self.answers.insert(id, answer),
            Err(refused) => answer.fail(io::Error::other(refused.error)),
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

fn shut_down(driver: &mut Driver, answer: Option<Answer<DrainReport>>) {
    let result = driver.drain(SHUTDOWN_TIMEOUT);
    if let Err(error) = &result {
        tracing::error!(%error, "the pool's driver could not be drained");
    }
    if let Some(answer) = answer {
        let _ = answer.send(result.map_err(io::Error::other));
    }
}

/// Checks that an operation moved all of its bytes.
fn whole(result: io::Result<usize>, bytes: &[u8]) -> io::Result<()> {
    if result? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // However the engine ends, no task may wait for ever.
        self.mailbox.close();
        for queue in self.streams.drain() {
            queue.end(Err(shut_down_error()));
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
