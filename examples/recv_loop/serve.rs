//! The loop that serves clients of other programs.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use uring_arena::{BufferRingId, Driver, Event, SocketId};

use crate::options::Options;
use crate::support::{self, Warning, mistake, say};
use crate::worker::{Work, Worker};

/// The time until accepting is tried again after it failed for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves clients of other programs, such as `nc`, and prints the checksum of each connection.
pub fn serve(options: &Options, address: &str) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(options.connections_max() as u64 + 64)?;
    let listener = support::listen(address)?;
    let (_arena, driver, ring) = crate::set_up(options)?;
    let address = listener.local_addr()?;
    let (queue, worker) = Worker::start();
    let mut server = Server {
        driver,
        ring,
        listener,
        accepting: None,
        failed: Instant::now(),
        queue,
        streams: HashMap::new(),
        accepted: 0,
        closed: 0,
        warning: Warning::default(),
    };
    server.accept()?;
    say!("listening on {address}");
    while !options.connections_given || server.closed < options.connections.get() {
        server.turn()?;
    }
    drop(server);
    worker.finish();
    Ok(())
}

struct Server {
    driver: Driver,
    ring: BufferRingId,
    listener: TcpListener,
    /// The listener, while it is with the driver.
    accepting: Option<SocketId>,
    /// When accepting failed last.
    failed: Instant,
    queue: Sender<Work>,
    /// The number and the name of each open stream.
    streams: HashMap<SocketId, (u64, String)>,
    accepted: u64,
    closed: usize,
    warning: Warning,
}

impl Server {
    fn accept(&mut self) -> Result<(), Box<dyn Error>> {
        self.accepting = Some(self.driver.accept(self.listener.try_clone()?)?);
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        if self.accepting.is_some() {
            self.driver.wait()?;
        } else {
            self.driver.wait_timeout(ACCEPT_AGAIN)?;
            if self.failed.elapsed() >= ACCEPT_AGAIN {
                // An error means that there is no descriptor yet.
                let _ = self.accept();
                self.failed = Instant::now();
            }
        }
        while let Some(event) = self.driver.next() {
            match event {
                Event::Accepted { socket, .. } => self.open(socket.into()),
                Event::Received { id, bytes } => {
                    let Some(&(stream, _)) = self.streams.get(&id) else { continue };
                    self.queue.send(Work::Bytes { stream, bytes })?;
                }
                Event::Closed { id, error } if Some(id) == self.accepting => {
                    self.accepting = None;
                    self.failed = Instant::now();
                    self.accepting_failed(error)?;
                }
                Event::Closed { id, error } => {
                    let Some((stream, name)) = self.streams.remove(&id) else { continue };
                    self.queue.send(Work::Closed { stream, name, error })?;
                    self.closed += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, socket: TcpStream) {
        let peer = socket.peer_addr();
        let name = peer.map_or_else(|error| error.to_string(), |peer| peer.to_string());
        match self.driver.receive(self.ring, socket) {
            Ok(id) => {
                self.streams.insert(id, (self.accepted, name));
                self.accepted += 1;
            }
            Err(error) => {
                self.warning.print(format_args!("a connection was refused: {error}"));
            }
        }
    }

    /// Takes note that accepting failed: for now, or for good.
    fn accepting_failed(&mut self, error: Option<io::Error>) -> Result<(), Box<dyn Error>> {
        match error {
            Some(error) if support::passes(&error) => {
                self.warning.print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                Ok(())
            }
            Some(error) => Err(mistake(format!("accepting clients failed: {error}"))),
            None => Err(mistake("the listener was closed")),
        }
    }
}
