//! One connection: its socket, receiving from it, and sending what is queued: at once what the
//! socket takes, and the rest by a task.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::tokio::io::ReadBuf;
use ::tokio::runtime::Handle;
use bytes::Bytes;

use super::shared::{Ahead, Shared, Ticket};
use crate::buffer::{Buffer, Payload};
use crate::runtime::tokio::engine::EngineEnd;
use crate::runtime::tokio::send_queue::{QueuedSend, SendQueue, drop_contained};
use crate::runtime::tokio::socket::{BUFFERS_MAX, Link, Watched, send_once};
use crate::slab::{Key, Slab};
use crate::sync::{Arc, Mutex};
use crate::system::SendOptions;

/// A connection that tokio's reactor watches: one descriptor for both directions.
///
/// Its stream and its half share it, and so does the task that sends what is queued, while there is
/// something.
pub(crate) struct Connection {
    queue: SendQueue,
    shared: Arc<Shared>,
    /// The runtime whose reactor watches the socket.
    runtime: Handle,
    _entry: Entry,
}

/// The connections of a pool.
pub(super) struct Table(Mutex<Slab<Weak<Connection>>>);

/// The entry of a connection in the table of its pool.
struct Entry {
    table: Arc<Table>,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.0.lock().remove(self.key);
    }
}

impl Table {
    pub(super) fn new() -> Table {
        Table(Mutex::new(Slab::new(Slab::<()>::LIMIT_MAX)))
    }

    /// Returns the connections that are there.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        let table = self.0.lock();
        table.iter().filter_map(|(_, connection)| connection.upgrade()).collect()
    }
}

impl Connection {
    /// Makes a connection with an entry in the table.
    pub(super) fn insert(
        table: &Arc<Table>,
        socket: Watched,
        send_bytes_max: usize,
        shared: Arc<Shared>,
        runtime: Handle,
    ) -> Arc<Connection> {
        let mut connections = table.0.lock();
        let key = connections.vacant_key().expect("more connections than the system has sockets");
        let queue = SendQueue::new(Link::Watched(socket), send_bytes_max);
        let entry = Entry { table: Arc::clone(table), key };
        let connection = Arc::new(Connection { queue, shared, runtime, _entry: entry });
        let inserted = connections.insert(Arc::downgrade(&connection));
        debug_assert!(inserted.is_ok());
        connection
    }

    #[inline]
    pub(crate) fn queue(&self) -> &SendQueue {
        &self.queue
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    #[inline]
    pub(crate) fn socket(&self) -> &Watched {
        match self.queue.socket() {
            Link::Watched(socket) => socket,
            Link::Own(_) => unreachable!("a connection of this engine is watched"),
        }
    }

    /// Returns the number by which holders name the connection: that of its descriptor.
    #[inline]
    fn number(&self) -> u64 {
        self.socket().as_fd().as_raw_fd() as u64
    }

    /// Takes the socket: itself, or a duplicate of it if somebody still shares the connection.
    pub(crate) fn into_socket(self: Arc<Self>) -> io::Result<OwnedFd> {
        match Arc::try_unwrap(self).map(|connection| connection.queue.into_socket()) {
            Ok(Link::Watched(socket)) => socket.into_fd(),
            Ok(Link::Own(socket)) => Ok(socket.into()),
            Err(shared) => shared.queue.as_fd().try_clone_to_owned(),
        }
    }
}

/// The receiving side of a connection.
pub(crate) struct Reading {
    connection: Arc<Connection>,
    /// The stream's place in the line of those that found no slot.
    ticket: Ticket,
    /// The slots that the next receive takes.
    run: u8,
    /// The share of the slots that were received ahead.
    ahead: Option<Box<Ahead>>,
}

impl Reading {
    pub(crate) fn new(connection: Arc<Connection>) -> Reading {
        Reading { connection, ticket: None, run: 1, ahead: None }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits until the socket may have bytes.
    #[inline(always)]
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.shared.check_open()?;
        let polled = ready!(self.connection.socket().poll_read_ready(context));
        // tokio's only error is that of a runtime that ends.
        Poll::Ready(polled.map_err(|_| EngineEnd::Runtime.error()))
    }

    /// Receives into a slot. Returns `None` when the peer has finished.
    ///
    /// The slot is taken when the socket has bytes. The budget of the task bounds the attempts. As
    /// long as receives fill their slots, the next one takes more of them, by one call: further
    /// bytes go to `taken`, which is empty.
    pub(crate) fn poll_receive(
        &mut self,
        taken: &mut VecDeque<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.ahead = None;
        loop {
            ready!(self.poll_ready(context))?;
            let mut slot = match self.connection.shared.try_claim() {
                Some(slot) => slot,
                None => ready!(self.poll_slot(context)),
            };
            let received = if self.run > 1 {
                self.receive_several(slot, taken)
            } else {
                let received = self.connection.socket().read_into(&mut slot);
                if slot.len() == slot.capacity() {
                    self.run = 2;
                }
                slot.record_connection(self.connection.number());
                received.map(|bytes| (bytes > 0).then(|| slot.freeze()))
            };
            match received {
                Ok(None) => return Poll::Ready(self.end().map(|()| None)),
                Ok(bytes) => return Poll::Ready(Ok(bytes)),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    /// Receives into as many slots as the last receives promise to fill.
    #[cold]
    fn receive_several(
        &mut self,
        first: Buffer,
        taken: &mut VecDeque<Bytes>,
    ) -> io::Result<Option<Bytes>> {
        let run = usize::from(self.run);
        let mut slots = Vec::with_capacity(run);
        slots.push(first);
        let mut ahead = self.connection.shared.claim_ahead(run - 1, &mut slots);
        let received = self.connection.socket().read_into_all(&mut slots);
        let used = slots.iter().take_while(|slot| !slot.is_empty()).count();
        let is_full = slots.iter().all(|slot| slot.len() == slot.capacity());
        self.run = if is_full { 2 * used } else { used }.clamp(1, BUFFERS_MAX) as u8;
        if received? == 0 {
            return Ok(None);
        }
        slots.truncate(used);
        ahead.keep(used - 1);
        self.ahead = Some(Box::new(ahead));
        slots.iter().for_each(|slot| slot.record_connection(self.connection.number()));
        let mut bytes = slots.into_iter().map(|slot| slot.freeze());
        let first = bytes.next();
        taken.extend(bytes);
        Ok(first)
    }

    /// Receives into memory of the caller's, without a slot. Nothing is received at the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_ready(context))?;
            match self.connection.socket().read_into(room) {
                Ok(0) if room.remaining() > 0 => return Poll::Ready(self.end()),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    #[cold]
    fn poll_slot(&mut self, context: &mut Context<'_>) -> Poll<Buffer> {
        let Connection { shared, runtime, .. } = &*self.connection;
        shared.line().poll_slot(runtime, &mut self.ticket, context)
    }

    /// Returns how a connection ended whose peer sends no more: the reset, if a send was told of
    /// one; the end of the pool, if that is why.
    fn end(&self) -> io::Result<()> {
        self.connection.shared.check_open()?;
        let queue = &self.connection.queue;
        let reset = queue.known_reset().error().or_else(|| queue.untold_reset());
        reset.map_or(Ok(()), Err)
    }

    fn failed(&self, error: io::Error) -> io::Error {
        self.connection.queue.known_reset().note(&error);
        match self.connection.shared.check_open() {
            Ok(()) => error,
            Err(end) => end,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.connection.shared.is_here() {
            self.connection.shared.line().leave(&mut self.ticket);
        } else {
            // tokio's watch and the connection are the parent's.
            std::mem::forget(Arc::clone(&self.connection));
        }
    }
}

/// Returns whether an attempt is made again, once the socket is ready.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The most sends that go out by one call.
const SENDS_MAX: usize = 64;

/// The calls that a task that queues a send makes for the others at most.
const ROUNDS: usize = 16;

/// The sends of a connection that go out next. There is one value a connection at a time: the
/// queue's `is_attended` sees to that.
struct Flushing {
    connection: Arc<Connection>,
    first: Option<QueuedSend>,
    others: VecDeque<QueuedSend>,
    /// The bytes of the first send that are out.
    sent: usize,
    is_done: bool,
    /// A shutdown of the pool waits until the memory of the sends is free.
    _operation: Arc<()>,
}

/// The reason why no more goes out for now.
enum Stop {
    /// Nothing is left.
    Done,
    /// The socket takes no more.
    Full,
    /// Others may run first.
    Yield,
}

/// Queues a send, for which room of `reserved` was taken, and sends what the socket takes. A task
/// goes on with the rest.
pub(crate) fn send(
    connection: &Arc<Connection>,
    payload: Payload,
    options: SendOptions,
    reserved: usize,
) -> io::Result<()> {
    if connection.queue().push(payload, options, reserved)? {
        Flushing::begin(connection);
    }
    Ok(())
}

impl Flushing {
    /// Sends what the socket takes. A task of the connection's runtime goes on with the rest.
    fn begin(connection: &Arc<Connection>) {
        let mut flushing = Flushing {
            connection: Arc::clone(connection),
            first: None,
            others: VecDeque::new(),
            sent: 0,
            is_done: false,
            _operation: connection.shared().operation(),
        };
        let socket = connection.socket();
        match flushing
            .send(|pieces| write_to(pieces, |b| socket.write(b), |p| socket.write_vectored(p)))
        {
            Stop::Done => flushing.is_done = true,
            Stop::Full | Stop::Yield => drop(connection.runtime().spawn(flushing)),
        }
    }

    /// Sends until nothing is left, or `write` takes no more.
    fn send(&mut self, mut write: impl FnMut(&Flushing) -> io::Result<usize>) -> Stop {
        for _ in 0..ROUNDS {
            if !self.fill() {
                return Stop::Done;
            }
            match write(self) {
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_passing(&error) => return Stop::Full,
                Err(error) => {
                    self.connection.queue().fail(&error);
                    self.drop_all();
                    return Stop::Done;
                }
            }
        }
        Stop::Yield
    }

    /// Takes sends out of the queue. Returns `false` if there are none: the next one begins anew.
    fn fill(&mut self) -> bool {
        let queue = self.connection.queue();
        if self.first.is_none() {
            self.first = queue.next();
            if self.first.is_none() {
                return false;
            }
        }
        while self.others.len() + 1 < SENDS_MAX
            && let Some(send) = queue.next_behind()
        {
            self.others.push_back(send);
        }
        true
    }

    /// Notes that the next `bytes` bytes are out.
    fn advance(&mut self, mut bytes: usize) {
        while let Some(first) = &self.first {
            let left = first.payload.as_ref().len() - self.sent;
            if bytes < left {
                self.sent += bytes;
                return;
            }
            bytes -= left;
            self.sent = 0;
            let QueuedSend { number, payload, .. } =
                std::mem::replace(&mut self.first, self.others.pop_front()).expect("looked at");
            drop_contained(payload);
            self.connection.queue().sent(number);
        }
    }

    fn drop_all(&mut self) {
        self.first.take().into_iter().chain(self.others.drain(..)).for_each(drop_contained);
    }

    /// Gives what is left a last moment, because the runtime ends. The reactor tells nothing any
    /// more.
    fn send_last(&mut self) {
        let connection = Arc::clone(&self.connection);
        let until = connection.shared().last_moment(connection.runtime().id());
        loop {
            // Past tokio, and without a descriptor more.
            let first = |flushing: &Flushing| {
                let bytes = flushing.first.as_ref().expect("filled").payload.as_ref();
                send_once(connection.queue().as_fd(), &bytes[flushing.sent..])
            };
            match self.send(first) {
                Stop::Done => break,
                Stop::Yield => {}
                Stop::Full if Instant::now() >= until => break,
                Stop::Full => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// Writes the next bytes: of one send, or of several at once.
fn write_to(
    flushing: &Flushing,
    one: impl FnOnce(&[u8]) -> io::Result<usize>,
    several: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let first = &flushing.first.as_ref().expect("filled").payload.as_ref()[flushing.sent..];
    if flushing.others.is_empty() {
        return one(first);
    }
    let mut pieces = [IoSlice::new(&[]); SENDS_MAX];
    pieces[0] = IoSlice::new(first);
    for (piece, send) in pieces[1..].iter_mut().zip(&flushing.others) {
        *piece = IoSlice::new(send.payload.as_ref());
    }
    several(&pieces[..=flushing.others.len()])
}

impl Future for Flushing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let connection = Arc::clone(&this.connection);
        let socket = connection.socket();
        loop {
            match this.send(|it| write_to(it, |b| socket.write(b), |p| socket.write_vectored(p))) {
                Stop::Done => break,
                Stop::Yield => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stop::Full => match ready!(socket.poll_write_ready(context)) {
                    Ok(()) => {}
                    // The runtime is ending, and drops the task.
                    Err(_) => return Poll::Pending,
                },
            }
        }
        this.is_done = true;
        Poll::Ready(())
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if !self.connection.shared().is_here() {
            // The connection is the parent's.
            return std::mem::forget(Arc::clone(&self.connection));
        }
        self.send_last();
        self.connection.queue().fail_if_busy(&EngineEnd::Runtime.error());
        self.drop_all();
    }
}
