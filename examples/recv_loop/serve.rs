//! The loop that serves clients of other programs.

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpStream;
use std::sync::mpsc::Sender;

use uring_arena::{BufferRingId, Driver, Event, SocketId};

use crate::options::Options;
use crate::support::{self, Warning, mistake, say};
use crate::worker::{Work, Worker};

/// Serves clients of other programs, such as `nc`, and prints the checksum of each connection.
pub fn serve(options: &Options, address: &str) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(options.connections_max() as u64 + 64)?;
    let listener = support::listen(address)?;
    let (_arena, mut driver, ring) = crate::set_up(options)?;
    let address = listener.local_addr()?;
    let listener = driver.accept(listener)?;
    let (queue, worker) = Worker::start();
    let mut server = Server {
        driver,
        ring,
        listener,
        queue,
        streams: HashMap::new(),
        accepted: 0,
        closed: 0,
        warning: Warning::default(),
    };
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
    listener: SocketId,
    queue: Sender<Work>,
    /// The number and the name of each open stream.
    streams: HashMap<SocketId, (u64, String)>,
    accepted: u64,
    closed: usize,
    warning: Warning,
}

impl Server {
    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        self.driver.wait()?;
        while let Some(event) = self.driver.next() {
            match event {
                Event::Accepted { socket, .. } => self.open(socket.into()),
                Event::Received { id, bytes, .. } => {
                    let Some(&(stream, _)) = self.streams.get(&id) else { continue };
                    self.queue.send(Work::Bytes { stream, bytes })?;
                }
                // The listener stays, and the clients wait in its queue.
                Event::AcceptFailed { error, .. } => {
                    self.warning
                        .print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                }
                Event::Closed { id, error, .. } if id == self.listener => {
                    let reason = error.map_or("it was closed".into(), |error| error.to_string());
                    return Err(mistake(format!("the listener failed: {reason}")));
                }
                Event::Closed { id, error, .. } => {
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
}
