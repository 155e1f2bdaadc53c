//! The desk: does what tasks ask of the driver, and tells them what happened.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use ::tokio::sync::oneshot;

use super::mailbox::{Command, FileKey, Mailbox, is_shut_down};
use super::stream_queue::{Inbox, Wish};
use crate::buffer::Buffer;
use crate::driver::{BufferRingId, DrainReport, Driver, Event, FileId, OperationId, SocketId};
use crate::error::DriverError;
use crate::sync::Arc;

/// How long a shutdown waits for what is in flight. Cancelled sockets take microseconds; only a
/// device that does not answer takes longer.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Who waits for what of a driver. It may be dropped on any thread: then all of them are told.
pub(crate) struct Desk {
    ring: BufferRingId,
    pub(crate) mailbox: Arc<Mailbox>,
    /// By the index of their socket.
    streams: Vec<Option<Arc<Inbox>>>,
    files: HashMap<FileKey, FileId>,
    /// By the index of their operation.
    answers: Vec<Option<Answer>>,
    /// Commands taken out of the mailbox; empty between turns.
    commands: Vec<Command>,
}

/// Who waits for an operation.
enum Answer {
    Read(oneshot::Sender<io::Result<Buffer>>),
    Done(oneshot::Sender<io::Result<()>>),
}

/// Whether the engine goes on.
#[derive(PartialEq, Eq)]
pub(crate) enum Next {
    Turn,
    Stop,
}

impl Desk {
    pub(crate) fn new(ring: BufferRingId) -> Desk {
        Desk {
            ring,
            mailbox: Arc::new(Mailbox::new()),
            streams: Vec::new(),
            files: HashMap::new(),
            answers: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// Tells what happened, and does what was asked.
    pub(crate) fn turn(&mut self, driver: &mut Driver) -> Next {
        while let Some(event) = driver.next() {
            self.tell(driver, event);
        }
        let mut commands = std::mem::take(&mut self.commands);
        self.mailbox.take(&mut commands);
        let mut next = Next::Turn;
        for command in commands.drain(..) {
            match next {
                Next::Turn => next = self.obey(driver, command),
                Next::Stop => command.cancel(),
            }
        }
        self.commands = commands;
        next
    }

    /// Tells whoever waits for it.
    fn tell(&mut self, driver: &mut Driver, event: Event) {
        match event {
            Event::Received { id, bytes } => {
                let Some(inbox) = self.stream(id) else { return };
                if inbox.put(bytes) == Wish::Pause {
                    note(driver.pause(id));
                }
            }
            Event::Closed { id, error } => {
                if let Some(inbox) = self.streams.get_mut(id.index()).and_then(Option::take) {
                    inbox.end(error.map_or(Ok(()), Err));
                }
            }
            Event::Read { id, result, buffer, .. } => {
                if let Some(Answer::Read(answer)) = self.answer(id) {
                    // Nobody waits any more: the buffer goes, and its slot is free.
                    let _ = answer.send(result.map(|_| buffer));
                }
            }
            Event::Wrote { id, result, payload, .. } => {
                let is_all = |written: usize| written == payload.as_ref().len();
                self.done(id, result.and_then(|written| complete(is_all(written))));
            }
            Event::Sent { id, result, payload, .. } => {
                let is_all = |sent: usize| sent == payload.as_ref().len();
                self.done(id, result.and_then(|sent| complete(is_all(sent))));
            }
            Event::Accepted { .. } | Event::Datagram { .. } => {
                unreachable!("a pool has neither listeners nor datagram sockets")
            }
        }
    }

    fn stream(&self, id: SocketId) -> Option<&Arc<Inbox>> {
        self.streams.get(id.index())?.as_ref()
    }

    fn answer(&mut self, id: OperationId) -> Option<Answer> {
        self.answers.get_mut(id.index())?.take()
    }

    fn done(&mut self, id: OperationId, result: io::Result<()>) {
        if let Some(Answer::Done(answer)) = self.answer(id) {
            let _ = answer.send(result);
        }
    }

    fn obey(&mut self, driver: &mut Driver, command: Command) -> Next {
        match command {
            Command::Receive { socket, inbox } => match driver.receive(self.ring, socket) {
                Ok(id) => self.begin_stream(driver, id, inbox),
                Err(error) => inbox.end(Err(io::Error::other(error))),
            },
            Command::Resume { inbox } => {
                if let Some(id) = inbox.socket() {
                    note(driver.resume(id));
                }
            }
            Command::Close { inbox } => {
                if let Some(id) = inbox.socket() {
                    note(driver.close(id));
                }
            }
            Command::Open { key, file } => match driver.add_file(file) {
                Ok(id) => drop(self.files.insert(key, id)),
                // Its operations will find no file.
                Err(error) => tracing::warn!(%error, "a file could not be opened for the pool"),
            },
            Command::CloseFile { key } => {
                if let Some(id) = self.files.remove(&key) {
                    note(driver.close_file(id));
                }
            }
            Command::Read { key, buffer, offset, answer } => {
                let Some(&file) = self.files.get(&key) else { return fail(answer) };
                match driver.read(file, buffer, offset) {
                    Ok(id) => self.wait_for(id, Answer::Read(answer)),
                    Err(refused) => drop(answer.send(Err(io::Error::other(refused.error)))),
                }
            }
            Command::Write { key, payload, offset, answer } => {
                let Some(&file) = self.files.get(&key) else { return fail(answer) };
                match driver.write(file, payload, offset) {
                    Ok(id) => self.wait_for(id, Answer::Done(answer)),
                    Err(refused) => drop(answer.send(Err(io::Error::other(refused.error)))),
                }
            }
            Command::Send { key, payload, options, answer } => {
                let Some(&socket) = self.files.get(&key) else { return fail(answer) };
                match driver.send_with(socket, payload, options) {
                    Ok(id) => self.wait_for(id, Answer::Done(answer)),
                    Err(refused) => drop(answer.send(Err(io::Error::other(refused.error)))),
                }
            }
            Command::Shutdown { answer } => {
                shut_down(driver, answer);
                return Next::Stop;
            }
        }
        Next::Turn
    }

    fn begin_stream(&mut self, driver: &mut Driver, id: SocketId, inbox: Arc<Inbox>) {
        let is_wanted = inbox.open(id);
        let place = id.index();
        if self.streams.len() <= place {
            self.streams.resize_with(place + 1, || None);
        }
        self.streams[place] = Some(inbox);
        if !is_wanted {
            note(driver.close(id));
        }
    }

    fn wait_for(&mut self, id: OperationId, answer: Answer) {
        let place = id.index();
        if self.answers.len() <= place {
            self.answers.resize_with(place + 1, || None);
        }
        self.answers[place] = Some(answer);
    }
}

/// What can only fail because the socket is closed already, or because the kernel refuses to go on,
/// which the next turn sees.
fn note(answer: Result<(), DriverError>) {
    if let Err(error) = answer {
        tracing::debug!(%error, "nothing to do for a socket of the pool");
    }
}

fn shut_down(driver: &mut Driver, answer: Option<oneshot::Sender<DrainReport>>) {
    match driver.drain(SHUTDOWN_PATIENCE) {
        Ok(drained) => drop(answer.map(|answer| answer.send(drained))),
        Err(error) => tracing::error!(%error, "the pool's driver could not be drained"),
    }
}

/// A file that was never opened, or is closed: its descriptor was refused.
fn fail<T>(answer: oneshot::Sender<io::Result<T>>) -> Next {
    let _ =
        answer.send(Err(io::Error::new(io::ErrorKind::NotFound, "the pool has no such file open")));
    Next::Turn
}

fn complete(is_all: bool) -> io::Result<()> {
    if is_all { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl Drop for Desk {
    /// However the engine ends, nobody waits for it for ever.
    fn drop(&mut self) {
        self.mailbox.close();
        for inbox in self.streams.drain(..).flatten() {
            inbox.end(Err(is_shut_down()));
        }
    }
}
