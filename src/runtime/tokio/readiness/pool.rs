//! The engine of a pool on tokio's reactor, and how its connections and files end with it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ::tokio::runtime::Handle;
use ::tokio::sync::oneshot;

use super::connection::{Connection, Table};
use super::shared::Shared;
use crate::arena::FixedArena;
use crate::lease::Place;
use crate::runtime::tokio::engine::{EngineEnd, LINGER, PoolMetrics, ShutdownReport};
use crate::runtime::tokio::socket::Watched;
use crate::sync::Arc;
use crate::system::shut_down;

/// The time that reads and writes of files have to end at a shutdown.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// The engine of a pool on tokio's reactor. It has no task and no thread of its own.
pub(crate) struct Readiness {
    shared: Arc<Shared>,
    table: Arc<Table>,
    send_bytes_max: usize,
}

impl Readiness {
    pub(crate) fn new(arena: FixedArena, send_bytes_max: usize, place: Place) -> Readiness {
        let (shared, table) = (Arc::new(Shared::new(arena, place)), Arc::new(Table::new()));
        Readiness { shared, table, send_bytes_max }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes a socket. Connections of a pool that was shut down are closed at once.
    pub(crate) fn connect(&self, socket: Watched, runtime: Handle) -> Arc<Connection> {
        let (shared, max) = (Arc::clone(&self.shared), self.send_bytes_max);
        let connection = Connection::insert(&self.table, socket, max, shared, runtime);
        if self.shared.check_open().is_err() {
            close(&connection);
        }
        connection
    }

    /// Adds what this engine has to the metrics of a pool.
    pub(crate) fn count(&self, metrics: &mut PoolMetrics) {
        let connections = self.table.all();
        metrics.connections += connections.len();
        metrics.datagram_sockets += self.shared.datagram_sockets();
        let (starved, starvations) = self.shared.line().counts();
        metrics.streams_starved += starved;
        metrics.starvations += starvations;
        let bytes = connections.iter().map(|connection| connection.queue().charged());
        metrics.send_bytes += bytes.sum::<usize>();
    }

    /// Ends all connections, and waits for what halves that are gone have left to send, and for
    /// files.
    pub(crate) async fn shutdown(&self) -> io::Result<ShutdownReport> {
        self.shared.check_open()?;
        if !self.shared.end() {
            return Err(EngineEnd::ShutDown.error());
        }
        let connections = self.table.all();
        connections.iter().for_each(|connection| close(connection));
        let closed = connections.len() + self.shared.datagram_sockets();
        let mut left = Left { lingering: connections, operations: self.shared.operation() };
        left.lingering.retain(|connection| connection.queue().lingers());
        if !left.is_over() {
            let (over, is_over) = oneshot::channel();
            // Nothing else is sure to wake the task in time: a runtime need not have a clock.
            let body = move || over.send(left.wait());
            std::thread::Builder::new().name("uring-arena-end".into()).spawn(body)?;
            let in_flight = is_over.await.unwrap_or(0);
            let report = ShutdownReport { closed, in_flight, ..ShutdownReport::default() };
            return Ok(report);
        }
        Ok(ShutdownReport { closed, ..ShutdownReport::default() })
    }
}

/// Ends a connection: those whose half is gone go on to send what they have.
fn close(connection: &Connection) {
    connection.queue().end_if_open(&EngineEnd::ShutDown.error());
    // Wakes the task that waits for bytes.
    let how = if connection.queue().lingers() { Shutdown::Read } else { Shutdown::Both };
    let _ = shut_down(connection.queue().as_fd(), how);
}

/// The rest that a shutdown waits for.
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
