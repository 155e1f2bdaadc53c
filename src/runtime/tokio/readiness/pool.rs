//! What the connections and files of one pool share, and how they end with it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};

use ::tokio::runtime::{Handle, Id as RuntimeId};
use ::tokio::sync::oneshot;

use super::connection::Connection;
use super::starved::Starved;
use crate::arena::FixedArena;
use crate::buffer::Buffer;
use crate::driver::{DrainReport, DriverError};
use crate::region::Process;
use crate::runtime::tokio::engine::{EngineEnd, LAST_MOMENT, LINGER};
use crate::runtime::tokio::socket::{Link, Watched};
use crate::slab::{Key, Slab};
use crate::sync::{Arc, Mutex};
use crate::uring::shut_down;

/// The time that reads and writes of files have to end at a shutdown.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// The engine of a pool on tokio's reactor. It has no task and no thread of its own.
pub(crate) struct Readiness {
    /// The process of the pool. A forked child has a copy of the locks, maybe taken.
    process: Process,
    arena: FixedArena,
    send_bytes_max: usize,
    starved: Starved,
    /// Set when the pool is shut down.
    end: OnceLock<EngineEnd>,
    connections: Mutex<Slab<Weak<Connection>>>,
    /// The runtime that ends, and the moment by which its connections are done.
    last_moment: Mutex<Option<(RuntimeId, Instant)>>,
    /// Each read and write of a file that is under way has a clone, and each task that sends.
    operations: Arc<()>,
}

impl Readiness {
    pub(crate) fn new(arena: FixedArena, send_bytes_max: usize) -> Readiness {
        Readiness {
            process: Process::current(),
            arena,
            send_bytes_max,
            starved: Starved::new(),
            end: OnceLock::new(),
            connections: Mutex::new(Slab::new(Slab::<()>::LIMIT_MAX)),
            last_moment: Mutex::new(None),
            operations: Arc::new(()),
        }
    }

    pub(super) fn arena(&self) -> &FixedArena {
        &self.arena
    }

    pub(super) fn starved(&self) -> &Starved {
        &self.starved
    }

    /// Returns the streams that wait for a slot, and how often one has had to.
    pub(crate) fn starved_counts(&self) -> (usize, u64) {
        self.starved.counts()
    }

    pub(super) fn operation(&self) -> Arc<()> {
        Arc::clone(&self.operations)
    }

    pub(super) fn is_here(&self) -> bool {
        self.process.is_current()
    }

    /// Fails in a forked child of the pool's process.
    #[inline]
    pub(crate) fn here(&self) -> Result<(), DriverError> {
        match self.process.other() {
            None => Ok(()),
            Some((of, to)) => Err(DriverError::OtherProcess { of, to }),
        }
    }

    /// Fails if the pool was shut down.
    #[inline]
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.here()?;
        self.end.get().map_or(Ok(()), |end| Err(end.error()))
    }

    /// Claims a slot for a caller that waits if there is none: `None` proves nothing.
    #[inline]
    pub(super) fn try_claim(&self) -> Option<Buffer> {
        let handle = self.arena.handle();
        let (lease, start) = handle.try_claim_slot()?;
        Some(Buffer::new(lease, start, handle.slot_bytes))
    }

    /// Takes a socket. Connections of a pool that was shut down are closed at once.
    pub(crate) fn connect(self: &Arc<Self>, socket: Watched, runtime: Handle) -> Arc<Connection> {
        let mut connections = self.connections.lock();
        let key = connections.vacant_key().expect("more connections than the system has sockets");
        let link = Link::Watched(socket);
        let connection = Connection::new(link, self.send_bytes_max, Arc::clone(self), runtime, key);
        let connection = Arc::new(connection);
        drop(connections.insert(Arc::downgrade(&connection)));
        drop(connections);
        if let Some(end) = self.end.get() {
            close(&connection, *end);
        }
        connection
    }

    pub(super) fn forget(&self, key: Key) {
        self.connections.lock().remove(key);
    }

    /// Returns the connections that are there.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        let connections = self.connections.lock();
        connections.iter().filter_map(|(_, connection)| connection.upgrade()).collect()
    }

    /// Returns the moment by which the connections of a runtime that ends are done: one for all.
    pub(super) fn last_moment(&self, runtime: RuntimeId) -> Instant {
        let mut last = self.last_moment.lock();
        match *last {
            Some((known, until)) if known == runtime => until,
            _ => last.insert((runtime, Instant::now() + LAST_MOMENT)).1,
        }
    }

    /// Ends all connections, and waits for what halves that are gone have left to send, and for
    /// files.
    pub(crate) async fn shutdown(self: &Arc<Self>) -> io::Result<DrainReport> {
        self.check_open()?;
        if self.end.set(EngineEnd::ShutDown).is_err() {
            return Err(EngineEnd::ShutDown.error());
        }
        let connections = self.connections();
        connections.iter().for_each(|connection| close(connection, EngineEnd::ShutDown));
        let closed = connections.len();
        let mut left = Left { lingering: connections, operations: Arc::clone(&self.operations) };
        left.lingering.retain(|connection| connection.queue().lingers());
        if !left.is_over() {
            let (over, is_over) = oneshot::channel();
            // Nothing else is sure to wake the task in time: a runtime need not have a clock.
            let body = move || over.send(left.wait());
            std::thread::Builder::new().name("uring-arena-end".into()).spawn(body)?;
            let in_flight = is_over.await.unwrap_or(0);
            let report = DrainReport { closed, in_flight, ..DrainReport::default() };
            return Ok(report);
        }
        Ok(DrainReport { closed, ..DrainReport::default() })
    }
}

/// Ends a connection: those whose half is gone go on to send what they have.
fn close(connection: &Connection, end: EngineEnd) {
    connection.queue().end_if_open(&end.error());
    // Wakes the task that waits for bytes.
    let how = if connection.queue().lingers() { Shutdown::Read } else { Shutdown::Both };
    let _ = shut_down(connection.queue().as_fd(), how);
}

/// What a shutdown waits for.
struct Left {
    lingering: Vec<Arc<Connection>>,
    operations: Arc<()>,
}

impl Left {
    /// Returns the number of reads, writes and sending tasks that are under way.
    fn in_flight(&self) -> usize {
        // One is the pool's, one is this one's.
        Arc::strong_count(&self.operations).saturating_sub(2)
    }

    fn is_over(&self) -> bool {
        self.lingering.is_empty() && self.in_flight() == 0
    }

    /// Waits, as long as it may take. Returns the reads and writes that are still under way.
    fn wait(mut self) -> usize {
        let began = Instant::now();
        while !self.lingering.is_empty() && began.elapsed() < LINGER {
            std::thread::sleep(Duration::from_millis(1));
            self.lingering.retain(|connection| !connection.queue().is_idle());
        }
        let error = EngineEnd::ShutDown.error();
        self.lingering.iter().for_each(|connection| connection.queue().fail_if_busy(&error));
        let began = Instant::now();
        while self.in_flight() > 0 && began.elapsed() < FILES_TIMEOUT {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.in_flight()
    }
}
