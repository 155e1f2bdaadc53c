//! The dispatcher: carries commands to the driver, and the driver's events to their tasks.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::datagrams::DatagramSockets;
use super::mailbox::{
    Answer, Command, FileKey, Mailbox, Place, Receive, RingCounts, cancel_contained,
};
use super::stream_queue::StreamQueue;
use crate::arena::FixedArena;
use crate::buffer::Buffer;
use crate::driver::{
    BufferRingId, DrainReport, Driver, DriverError, Event, FileId, OperationId, SocketId,
    SubmitError,
};
use crate::runtime::tokio::engine::{
    EngineEnd, LAST_MOMENT, LINGER, Starvation, log_refusal, tell_end_of_starvation,
    tell_starvation,
};
use crate::runtime::tokio::send_queue::{QueuedSend, SendQueue, drop_contained};
use crate::slab::{Id, IdMap};
use crate::sync::{Arc, contain};
use crate::system::{SendOptions, queued_bytes};

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
    connections: IdMap<SocketId, Connection>,
    /// The open files, and the errors of those that the driver refused.
    files: IdMap<FileKey, Result<FileId, OpenError>>,
    senders: IdMap<FileKey, Sender>,
    datagrams: DatagramSockets,
    /// The places of the datagram sockets.
    datagram_places: IdMap<SocketId, Place>,
    answers: IdMap<OperationId, OperationAnswer>,
    /// Commands taken out of the mailbox, the first one last; empty between turns.
    commands: Vec<Command>,
    /// The most connections, reads and writes together: as the user asked.
    operations_max: usize,
    writes: usize,
    sends: usize,
    /// Senders whose next send the driver could not take for now.
    stalled: Vec<FileKey>,
    ending: Option<Ending>,
    /// Everything was cancelled.
    is_ended: bool,
    /// The connections that ended since.
    closed: usize,
    /// The messages that were copied out of their slots.
    copied: u64,
    /// The connections that are paused.
    paused: usize,
    starvation: Starvation,
    arena: FixedArena,
    /// The reason to give to tasks that wait when the engine ends.
    pub(super) end: EngineEnd,
}

/// The error of a file that could not be opened, or of a connection that has ended: its number, if
/// it is the system's, and its kind.
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

/// A connection that the driver receives from, and closes when both of its sides are done.
struct Connection {
    stream: Arc<StreamQueue>,
    /// The half that may send on it.
    half: Option<FileKey>,
    /// The peer has finished, or the stream is gone.
    is_received: bool,
    is_paused: bool,
    /// The task that wants the socket back, without an end of the connection.
    wanted_by: Option<Answer<()>>,
    _place: Place,
}

/// The sending side of a connection.
struct Sender {
    queue: Arc<SendQueue>,
    socket: SocketId,
    /// The sends that the driver has.
    under_way: usize,
    /// The zero-copy sends among them, and their bytes: the peer has yet to acknowledge them.
    zero_copy: (usize, usize),
    /// The half is gone: this side is done after the last send.
    is_released: bool,
    /// The error that the connection has ended with.
    broken: Option<OpenError>,
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
    Read { answer: Answer<Buffer>, _place: Place },
    Written { answer: Answer<()>, _place: Place },
    Synced { answer: Answer<()>, _place: Place },
    Sent { sender: FileKey, number: u64, zero_copy_bytes: usize },
}

impl Sender {
    /// Returns the options of the next send, of so many bytes: an ordinary one if zero-copy sends
    /// would slow the connection down.
    ///
    /// They keep their room until they are acknowledged, those of a burst together. Once they have
    /// half of it, an ordinary send follows, which gives its room back at once. So the socket's
    /// queue never waits for room. Where the link holds little, and the kernel has much to send,
    /// zero-copy goes on: acknowledgments come soon.
    fn next_options(
        &self,
        options: SendOptions,
        bytes: usize,
        is_share_scarce: bool,
    ) -> SendOptions {
        let is_slowed = || {
            let queued = || queued_bytes(self.queue.as_fd());
            is_share_scarce || slows(self.zero_copy, bytes, self.queue.bytes_max(), queued)
        };
        let is_copied = options.asks_for_zero_copy(bytes) && is_slowed();
        if is_copied { options.copied() } else { options }
    }
}

/// Returns whether a further zero-copy send, of so many bytes, would slow a connection down that
/// has others under way and so much room. `queued` tells the bytes in the socket's queue: those
/// that the kernel has not sent, and those that are on the link.
fn slows(
    (sends, held): (usize, usize),
    bytes: usize,
    room: usize,
    queued: impl FnOnce() -> Option<(usize, usize)>,
) -> bool {
    if held + bytes <= room / 2 && sends < SENDS_AHEAD / 2 {
        return false;
    }
    !queued().is_some_and(|(unsent, on_link)| unsent >= room / 4 && on_link <= room / 4)
}

impl Dispatcher {
    /// Makes the dispatcher of a driver that has room for three times `operations_max` operations.
    pub(super) fn new(ring: BufferRingId, operations_max: usize, arena: FixedArena) -> Dispatcher {
        Dispatcher {
            ring,
            mailbox: Arc::new(Mailbox::new(operations_max)),
            connections: IdMap::new(),
            files: IdMap::new(),
            senders: IdMap::new(),
            datagrams: DatagramSockets::new(),
            datagram_places: IdMap::new(),
            answers: IdMap::new(),
            commands: Vec::new(),
            operations_max,
            writes: 0,
            sends: 0,
            stalled: Vec::new(),
            ending: None,
            is_ended: false,
            closed: 0,
            copied: 0,
            paused: 0,
            starvation: Starvation::default(),
            arena,
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
        self.datagrams.send_stalled(driver, self.operations_max.saturating_sub(self.sends));
        let counts = self.counts(driver);
        self.mailbox.take(&mut self.commands, counts);
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
            Event::Received { id, bytes, .. } => self.received(driver, id, bytes),
            Event::Datagram { id, datagram, .. } => {
                self.copied += u64::from(self.datagrams.received(driver, id, datagram));
            }
            Event::Finished { id, .. } => self.finished(driver, id),
            Event::Closed { id, error, .. } => self.socket_closed(id, error),
            Event::Read { id, result, buffer, .. } => {
                if let Some(OperationAnswer::Read { answer, .. }) = self.answers.remove(id) {
                    tell(answer, result.map(|_| buffer).map_err(|error| self.cause(error)));
                }
            }
            Event::Wrote { id, result, payload, .. } => {
                let result = whole(result, payload.as_ref());
                drop_contained(payload);
                if let Some(OperationAnswer::Written { answer, .. }) = self.answers.remove(id) {
                    self.writes -= 1;
                    tell(answer, result.map_err(|error| self.cause(error)));
                }
            }
            Event::Done { id, result, .. } => {
                if let Some(OperationAnswer::Synced { answer, .. }) = self.answers.remove(id) {
                    tell(answer, result.map_err(|error| self.cause(error)));
                }
            }
            Event::Sent { id, result, payload, .. } => {
                let result = whole(result, payload.as_ref());
                drop_contained(payload);
                match self.answers.remove(id) {
                    Some(OperationAnswer::Sent { sender: key, number, zero_copy_bytes }) => {
                        if let Some(sender) = self.senders.get_mut(key) {
                            sender.zero_copy.0 -= usize::from(zero_copy_bytes > 0);
                            sender.zero_copy.1 -= zero_copy_bytes;
                        }
                        self.on_sent(driver, key, number, result);
                    }
                    _ => {
                        let result = result.map_err(|error| self.cause(error));
                        let ahead = self.operations_max.saturating_sub(self.sends);
                        self.datagrams.on_sent(driver, id, result, ahead);
                    }
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
            Command::Receive(receive) => self.receive(driver, receive),
            Command::Resume { queue } => {
                if let Some(id) = queue.socket() {
                    self.note_pause(id, false);
                    log_refusal(driver.resume(id));
                }
            }
            Command::Close { queue } => {
                if let Some(id) = queue.socket() {
                    self.stop_receiving(driver, id);
                }
            }
            Command::GiveBack { queue, answer } => self.give_back(driver, &queue, answer),
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
                let submit = |file| driver.read(file, buffer, offset).map_err(refused);
                if let Some((id, answer, _place)) = self.submit(key, answer, submit) {
                    self.answers.insert(id, OperationAnswer::Read { answer, _place });
                }
            }
            Command::Write { key, payload, offset, answer } => {
                let submit = |file| driver.write(file, payload, offset).map_err(refused);
                if let Some((id, answer, _place)) = self.submit(key, answer, submit) {
                    self.writes += 1;
                    self.answers.insert(id, OperationAnswer::Written { answer, _place });
                }
            }
            Command::SyncData { key, answer } => {
                let submit = |file| driver.sync_data(file).map_err(io::Error::from);
                if let Some((id, answer, _place)) = self.submit(key, answer, submit) {
                    self.answers.insert(id, OperationAnswer::Synced { answer, _place });
                }
            }
            Command::Send { key } => self.send_queued(driver, key),
            Command::ReleaseSocket { key } => {
                match self.senders.get_mut(key) {
                    Some(sender) => sender.is_released = true,
                    None => self.mailbox.forget(key),
                }
                self.close_if_done(driver, key);
            }
            Command::Datagrams { command, place } => {
                let ahead = self.operations_max.saturating_sub(self.sends);
                let opened = self.datagrams.on_command(driver, self.ring, command, ahead);
                if let (Some(id), Some(place)) = (opened, place) {
                    self.datagram_places.insert(id, place);
                }
            }
            Command::Shutdown { answer } => self.begin_end(driver, answer),
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

    /// Submits an operation on a file. Tells the task at once if that fails.
    fn submit<T>(
        &mut self,
        key: FileKey,
        answer: Answer<T>,
        submit: impl FnOnce(FileId) -> io::Result<OperationId>,
    ) -> Option<(OperationId, Answer<T>, Place)> {
        let submitted = match (self.files.get(key), Place::take(&self.mailbox)) {
            (None, _) => Err(io::ErrorKind::NotFound.into()),
            (Some(Err(error)), _) => Err(error.to_io_error()),
            (_, Err(error)) => Err(error.into()),
            (Some(&Ok(file)), Ok(place)) => submit(file).map(|id| (id, place)),
        };
        match submitted {
            Ok((id, place)) => Some((id, answer, place)),
            Err(error) => {
                tell(answer, Err(error));
                None
            }
        }
    }

    /// Returns the counts that the pool's metrics tell.
    fn counts(&mut self, driver: &Driver) -> RingCounts {
        let (metrics, slots) = (driver.metrics(), self.arena.slot_count());
        if metrics.parked == 0 {
            if let Some(lasted) = self.starvation.end() {
                tell_end_of_starvation(slots, lasted);
            }
        } else if self.starvation.begin(|| self.arena.is_full()) {
            // With free slots the next turn finds some.
            tell_starvation(slots);
        }
        RingCounts {
            starved: metrics.parked,
            starvations: metrics.starved,
            paused: self.paused,
            copied: self.copied + metrics.copied,
            driver: metrics,
        }
    }
}

/// Receives.
impl Dispatcher {
    fn receive(&mut self, driver: &mut Driver, receive: Receive) {
        let Receive { socket, stream, half, place } = receive;
        let received = driver.receive(self.ring, socket).map_err(|refused| refused.error);
        // The connection ends when both of its sides are done.
        let id = match received.and_then(|id| driver.set_half_open(id, true).map(|()| id)) {
            Ok(id) => id,
            Err(error) => {
                if let Some((_, queue)) = half {
                    queue.fail(&error.into());
                }
                return stream.end(Err(error.into()));
            }
        };
        let is_wanted = stream.attach(id);
        let key = half.as_ref().map(|(key, _)| *key);
        if let Some((key, queue)) = half {
            let (under_way, zero_copy, is_released, broken) = (0, (0, 0), false, None);
            let sender = Sender { queue, socket: id, under_way, zero_copy, is_released, broken };
            self.senders.insert(key, sender);
        }
        let connection = Connection {
            stream,
            half: key,
            is_received: false,
            is_paused: false,
            wanted_by: None,
            _place: place,
        };
        self.connections.insert(id, connection);
        if !is_wanted {
            self.stop_receiving(driver, id);
        }
    }

    fn received(&mut self, driver: &mut Driver, id: SocketId, bytes: Bytes) {
        let Some(connection) = self.connections.get(id) else { return drop_contained(bytes) };
        let pushed = connection.stream.push(bytes);
        self.copied += u64::from(pushed.is_copied);
        if pushed.must_pause {
            self.note_pause(id, true);
            log_refusal(driver.pause(id));
        }
    }

    fn note_pause(&mut self, id: SocketId, is_paused: bool) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.is_paused != is_paused
        {
            connection.is_paused = is_paused;
            self.paused = self.paused.wrapping_add_signed(if is_paused { 1 } else { -1 });
        }
    }

    /// Ends the stream of a connection whose peer has finished. The half may go on.
    fn finished(&mut self, driver: &mut Driver, id: SocketId) {
        if let Some(connection) = self.connections.get(id) {
            connection.stream.end(Ok(()));
            self.stop_receiving(driver, id);
        }
    }

    /// Receives no more. The connection stays as long as its half may send.
    fn stop_receiving(&mut self, driver: &mut Driver, id: SocketId) {
        self.note_pause(id, false);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_received = true;
        log_refusal(match connection.half {
            Some(_) => driver.pause(id),
            None => driver.close(id),
        });
    }

    fn socket_closed(&mut self, id: SocketId, error: Option<io::Error>) {
        self.note_pause(id, false);
        self.closed += 1;
        let was_closed_by_us = self.is_ended.then(|| EngineEnd::ShutDown.error());
        let Some(connection) = self.connections.remove(id) else {
            drop(self.datagram_places.remove(id));
            return self.datagrams.on_closed(id, error.or(was_closed_by_us));
        };
        if let (Some(error), Some(key)) = (&error, connection.half)
            && let Some(sender) = self.senders.get_mut(key)
        {
            sender.broken = Some(OpenError::new(error));
        }
        if let Some(answer) = connection.wanted_by {
            return tell(answer, error.map_or(Ok(()), Err));
        }
        connection.stream.end(error.or(was_closed_by_us).map_or(Ok(()), Err));
    }

    /// Lets go of a socket that has nothing left to send.
    fn give_back(&mut self, driver: &mut Driver, queue: &StreamQueue, answer: Answer<()>) {
        let Some(id) = queue.socket() else {
            // The peer has finished, or the connection has failed: the driver has no part in it.
            return tell(answer, Ok(()));
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some(key) = connection.half.take() {
            self.senders.remove(key);
            self.mailbox.forget(key);
        }
        connection.wanted_by = Some(answer);
        log_refusal(driver.close(id));
    }
}

/// Sends.
impl Dispatcher {
    /// Gives the driver what a connection has queued, as far as its share of operations goes.
    fn send_queued(&mut self, driver: &mut Driver, key: FileKey) {
        while let Some(sender) = self.senders.get_mut(key) {
            let sends = self.sends + self.datagrams.under_way();
            // Each sender may have one send under way: so none waits for the peer of another.
            let may_send = sender.under_way == 0
                || sender.under_way < SENDS_AHEAD && sends < self.operations_max;
            if !may_send {
                return;
            }
            let Some(QueuedSend { number, payload, options }) = sender.queue.next() else { return };
            if let Some(broken) = sender.broken {
                sender.queue.fail(&broken.to_io_error());
                return drop_contained(payload);
            }
            let bytes = payload.as_ref().len();
            let is_share_scarce = sends >= self.operations_max / 2;
            let chosen = sender.next_options(options, bytes, is_share_scarce);
            match driver.send_with(sender.socket, payload, chosen) {
                Ok(id) => {
                    let zero_copy_bytes = if chosen.asks_for_zero_copy(bytes) { bytes } else { 0 };
                    sender.under_way += 1;
                    sender.zero_copy.0 += usize::from(zero_copy_bytes > 0);
                    sender.zero_copy.1 += zero_copy_bytes;
                    self.sends += 1;
                    let sent = OperationAnswer::Sent { sender: key, number, zero_copy_bytes };
                    self.answers.insert(id, sent);
                }
                Err(SubmitError { error, memory: payload, .. }) => {
                    sender.queue.put_back(QueuedSend { number, payload, options });
                    match error.is_passing() {
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
        let is_ended = self.is_ended;
        let Some(sender) = self.senders.get_mut(key) else { return };
        sender.under_way -= 1;
        match result {
            Ok(()) => sender.queue.sent(number),
            // Nobody gives a send up but at the end of the pool: the receiving side was told that
            // the connection has failed, and the driver ends the socket.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) && !is_ended => {
                let cause = sender.broken.as_ref().map(|broken| broken.to_io_error());
                let reset = || io::Error::from_raw_os_error(libc::ECONNRESET);
                sender.queue.fail(&cause.unwrap_or_else(reset));
            }
            Err(error) => sender.queue.fail(&error),
        }
        self.send_queued(driver, key);
        self.close_if_done(driver, key);
    }

    /// Ends the side of a sender that is gone and has nothing left to send.
    fn close_if_done(&mut self, driver: &mut Driver, key: FileKey) {
        let Some(sender) = self.senders.get(key) else { return };
        if !sender.is_released || sender.under_way > 0 || !sender.queue.is_idle() {
            return;
        }
        let id = sender.socket;
        self.senders.remove(key);
        self.mailbox.forget(key);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.half = None;
            if connection.is_received {
                log_refusal(driver.close(id));
            }
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
            return self.connections.len() + self.answers.len() + self.datagrams.len() == 0;
        }
        let writes = if ending.deadline.is_none() { self.writes } else { 0 };
        writes == 0 && self.is_sent()
    }

    /// Returns whether nothing is left to send.
    fn is_sent(&self) -> bool {
        self.datagrams.is_sent() && self.senders.iter().all(|sender| sender.queue.is_idle())
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
        for id in self.connections.ids() {
            log_refusal(driver.close(id));
        }
        for id in self.answers.ids() {
            log_refusal(driver.cancel_operation(id));
        }
        self.datagrams.close_all(driver, &EngineEnd::ShutDown.error());
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
            if self.is_ended || self.is_sent() || driver.wait_timeout(LAST_MOMENT / 20).is_err() {
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
        for connection in self.connections.drain() {
            connection.stream.end(Err(self.end.error()));
        }
        self.datagrams.end_all(end);
        self.answers.drain().for_each(drop_contained);
        self.ending.take().into_iter().for_each(drop_contained);
    }
}

/// Tells a task the result of its command. Without a task that waits the result is dropped.
fn tell<T>(answer: Answer<T>, result: io::Result<T>) {
    contain("an answer", || drop(answer.send(result)));
}

/// Returns the reason of a refusal, and drops the memory.
fn refused<M>(refused: SubmitError<M>) -> io::Error {
    drop_contained(refused.memory);
    refused.error.into()
}

/// Checks that an operation moved all of its bytes.
fn whole(result: io::Result<usize>, bytes: &[u8]) -> io::Result<()> {
    if result? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl Id for FileKey {
    fn index(self) -> usize {
        FileKey::index(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;
    const FRAME: usize = 1 << 16;

    /// A link with a delay, whose acknowledgments come for all zero-copy sends together.
    #[test]
    fn zero_copy_sends_leave_half_of_the_room_to_others() {
        let unasked = || unreachable!("there is room");
        assert!(!slows((0, 0), FRAME, ROOM, unasked));
        assert!(!slows((7, 7 * FRAME), FRAME, ROOM, unasked));
        for (unsent, on_link, slowed) in [
            // Everything is on the link, which would wait for acknowledgments.
            (0, 8 * FRAME, true),
            (2000, 40 * FRAME, true),
            // The link is long: what the kernel has left is sent before they come.
            (8 * FRAME, 40 * FRAME, true),
            // The link is short, and the kernel has enough to send.
            (8 * FRAME, 2 * FRAME, false),
        ] {
            let queued = || Some((unsent, on_link));
            assert_eq!(slows((8, 8 * FRAME), FRAME, ROOM, queued), slowed, "{unsent} {on_link}");
        }
        assert!(slows((SENDS_AHEAD / 2, 100), 100, ROOM, || None));
        assert!(slows((0, 0), ROOM, ROOM, || None), "one that takes all of it");
    }
}
