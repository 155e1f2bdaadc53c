//! The proxy itself: pairs of sockets, and the sends from one to the other.

use std::collections::HashMap;
use std::error::Error;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use uring_arena::{
    BufferRing, BufferRingId, Driver, Event, FileId, FixedArena, OperationId, SendOptions, SocketId,
};

use crate::options::Options;
use crate::support::check_all_free;

/// The length below which a message is copied to the heap.
///
/// A copied message does not keep a slot in use until the peer reads it.
const COPY_BELOW: usize = 512;

/// A direction of a connection.
///
/// Each direction has its own arena and buffer ring. With a common one, a peer that reads nothing
/// until it has sent something could take the slots of the direction that it waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// The state of one direction of one connection.
struct Lane {
    /// The socket that bytes are received from.
    from: SocketId,
    /// The socket that bytes are sent to.
    to: FileId,
    /// The socket of `to` once more, to shut it down for writing.
    to_socket: TcpStream,
    /// The number of sends in flight.
    sends: usize,
    /// Nothing more is received.
    ended: bool,
}

impl Lane {
    fn is_over(&self) -> bool {
        self.ended && self.sends == 0
    }
}

/// The counts of what passed through.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub bytes: u64,
    pub sends: u64,
    pub zero_copy: u64,
    pub zero_copy_copied: u64,
}

type LaneKey = (usize, Direction);

pub struct Relay {
    driver: Driver,
    arenas: [FixedArena; 2],
    rings: [BufferRingId; 2],
    options: SendOptions,
    connections: Vec<Option<[Lane; 2]>>,
    receiving: HashMap<SocketId, LaneKey>,
    sending: HashMap<OperationId, LaneKey>,
    finished: usize,
    tally: Tally,
}

impl Relay {
    pub fn new(options: &Options) -> Result<Relay, Box<dyn Error>> {
        let arena = || {
            FixedArena::with_slot_capacity(options.slots, options.slot_bytes)
                .alignment(4096)
                .build()
        };
        let arenas = [arena()?, arena()?];
        let mut driver = Driver::builder().build()?;
        for arena in &arenas {
            // Zero-copy sends need registered memory; sends from other memory are ordinary ones.
            driver.register(arena)?;
        }
        let ring = BufferRing::options().copy_below(COPY_BELOW);
        let rings = [
            driver.register_buffer_ring(&arenas[0], ring)?,
            driver.register_buffer_ring(&arenas[1], ring)?,
        ];
        Ok(Relay {
            driver,
            arenas,
            rings,
            options: SendOptions::new().zero_copy_from(options.zero_copy_from),
            connections: Vec::new(),
            receiving: HashMap::new(),
            sending: HashMap::new(),
            finished: 0,
            tally: Tally::default(),
        })
    }

    pub fn accept(&mut self, listener: TcpListener) -> Result<(), Box<dyn Error>> {
        self.driver.accept(listener)?;
        Ok(())
    }

    /// Returns the number of connections that are over.
    pub fn finished(&self) -> usize {
        self.finished
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Waits for events and handles them. New connections are connected to `server`.
    pub fn turn(&mut self, server: &str) -> Result<(), Box<dyn Error>> {
        self.driver.wait()?;
        while let Some(event) = self.driver.next() {
            match event {
                Event::Accepted { socket, .. } => {
                    if let Err(error) = self.connect(socket.into(), server) {
                        eprintln!("a connection was refused: {error}");
                    }
                }
                Event::Received { id, bytes } => {
                    let Some(&key) = self.receiving.get(&id) else { continue };
                    let Some(lane) = self.lane(key) else { continue };
                    lane.sends += 1;
                    let to = lane.to;
                    let operation = self.driver.send_with(to, bytes, self.options)?;
                    self.sending.insert(operation, key);
                }
                Event::Sent { id, result, copied, .. } => {
                    let Some(key) = self.sending.remove(&id) else { continue };
                    self.tally.sends += 1;
                    self.tally.zero_copy += u64::from(copied.is_some());
                    self.tally.zero_copy_copied += u64::from(copied == Some(true));
                    match result {
                        Ok(sent) => self.tally.bytes += sent as u64,
                        // The receiver is gone: nothing more is received for it.
                        Err(_) => self.stop_receiving(key),
                    }
                    if let Some(lane) = self.lane(key) {
                        lane.sends -= 1;
                    }
                    self.end_if_over(key)?;
                }
                Event::Closed { id, .. } => {
                    let Some(key) = self.receiving.remove(&id) else { continue };
                    if let Some(lane) = self.lane(key) {
                        lane.ended = true;
                    }
                    self.end_if_over(key)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn lane(&mut self, (connection, direction): LaneKey) -> Option<&mut Lane> {
        Some(&mut self.connections.get_mut(connection)?.as_mut()?[direction as usize])
    }

    fn connect(&mut self, client: TcpStream, server: &str) -> Result<(), Box<dyn Error>> {
        let server = TcpStream::connect(server)?;
        let connection = self.connections.len();
        let lanes = [
            self.lane_between(&client, &server, (connection, Direction::ToServer))?,
            self.lane_between(&server, &client, (connection, Direction::ToClient))?,
        ];
        self.connections.push(Some(lanes));
        Ok(())
    }

    fn lane_between(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        key: LaneKey,
    ) -> Result<Lane, Box<dyn Error>> {
        let to_socket = to.try_clone()?;
        let to = self.driver.add_file(to.try_clone()?)?;
        let from = self.driver.receive(self.rings[key.1 as usize], from.try_clone()?)?;
        self.receiving.insert(from, key);
        Ok(Lane { from, to, to_socket, sends: 0, ended: false })
    }

    fn stop_receiving(&mut self, key: LaneKey) {
        if let Some(lane) = self.lane(key) {
            let from = lane.from;
            // An error means that the socket is closed already.
            let _ = self.driver.close(from);
        }
    }

    /// Ends the direction, and then the connection, if all bytes have been sent on.
    fn end_if_over(&mut self, key: LaneKey) -> Result<(), Box<dyn Error>> {
        let Some(lane) = self.lane(key).filter(|lane| lane.is_over()) else { return Ok(()) };
        // An error means that the peer has closed the connection already.
        let _ = lane.to_socket.shutdown(Shutdown::Write);
        let lanes = &mut self.connections[key.0];
        if lanes.as_ref().is_some_and(|lanes| lanes.iter().all(Lane::is_over))
            && let Some(lanes) = lanes.take()
        {
            self.finished += 1;
            for lane in lanes {
                self.driver.close_file(lane.to)?;
            }
        }
        Ok(())
    }

    /// Drains the driver. Returns an error unless every slot is free.
    pub fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let drained = self.driver.drain(Duration::from_secs(10))?;
        self.arenas.iter().try_for_each(|arena| check_all_free(arena, drained.in_flight))
    }
}
