//! One connection: its socket, and what is queued to be sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

use ::tokio::io::ReadBuf;
use ::tokio::runtime::Handle;
use bytes::Bytes;

use super::shared::{Ahead, Shared};
use super::starved::Ticket;
use crate::buffer::Buffer;
use crate::runtime::tokio::engine::EngineEnd;
use crate::runtime::tokio::send_queue::SendQueue;
use crate::runtime::tokio::socket::{BUFFERS_MAX, Link, Watched};
use crate::slab::{Key, Slab};
use crate::sync::{Arc, Mutex};

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

    /// Takes the socket, if nobody else shares the connection.
    pub(crate) fn into_socket(self: Arc<Self>) -> Option<Watched> {
        match Arc::into_inner(self)?.queue.into_socket() {
            Link::Watched(socket) => Some(socket),
            Link::Own(_) => None,
        }
    }
}

/// The receiving side of a connection.
pub(crate) struct Reading {
    connection: Arc<Connection>,
    /// The stream's place in the line of those that found no slot.
    ticket: Ticket,
    /// The slots that the next receive takes.
    run: usize,
    /// The share of the slots that were received ahead.
    ahead: Option<Ahead>,
}

impl Reading {
    pub(crate) fn new(connection: Arc<Connection>) -> Reading {
        Reading { connection, ticket: None, run: 1, ahead: None }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits until the socket may have bytes.
    #[inline]
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
        let mut slots = Vec::with_capacity(self.run);
        slots.push(first);
        let mut ahead = self.connection.shared.claim_ahead(self.run - 1, &mut slots);
        let received = self.connection.socket().read_into_all(&mut slots);
        let used = slots.iter().take_while(|slot| !slot.is_empty()).count();
        let is_full = slots.iter().all(|slot| slot.len() == slot.capacity());
        self.run = if is_full { (2 * used).min(BUFFERS_MAX) } else { used.max(1) };
        if received? == 0 {
            return Ok(None);
        }
        slots.truncate(used);
        ahead.keep(used - 1);
        self.ahead = Some(ahead);
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
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
