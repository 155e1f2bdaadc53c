//! The proxy itself: pairs of sockets, and what goes from one to the other.

use std::collections::HashMap;
use std::error::Error;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use uring_arena::{
    BufferRing, BufferRingId, Driver, Event, FileId, FixedArena, OperationId, SendOptions, SocketId,
};

use crate::options::Options;
use crate::support::mistake;

/// Shorter messages are copied to the heap, so that they do not hold a slot until the peer takes
/// them.
const COPY_BELOW: usize = 512;

/// The two ways of a connection. Each has an arena and a buffer ring of its own: if both drew on
/// one, a peer that takes nothing until it has sent something could starve the way that it waits
/// for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// One way of one connection.
struct Lane {
    /// Received from.
    from: SocketId,
    /// Sent to.
    to: FileId,
    /// The same socket, to say that nothing more comes.
    to_socket: TcpStream,
    /// Sends under way.
    sends: usize,
    /// Nothing more is received.
    ended: bool,
}

impl Lane {
    fn is_over(&self) -> bool {
        self.ended && self.sends == 0
    }
}

/// What went through.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub bytes: u64,
    pub sends: u64,
    pub zero_copy: u64,
    pub zero_copy_copied: u64,
}

type LaneKey = (usize, Way);

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
            // So that sends can be zero-copy; without, they are ordinary ones.
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

    /// Connections that are over.
    pub fn finished(&self) -> usize {
        self.finished
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Waits for something to happen, and acts on all that did. New connections go on to `server`.
    pub fn turn(&mut self, server: &str) -> Result<(), Box<dyn Error>> {
        self.driver.wait()?;
        while let Some(event) = self.driver.next() {
            match event {
                Event::Accepted { socket, .. } => {
                    if let Err(error) = self.connect(socket.into(), server) {
                        eprintln!("a connection was turned away: {error}");
                    }
                }
                Event::Received { id, bytes } => {
                    let Some(&(connection, way)) = self.receiving.get(&id) else { continue };
                    let Some(lane) = self.lane((connection, way)) else { continue };
                    lane.sends += 1;
                    let to = lane.to;
                    let operation = self.driver.send_with(to, bytes, self.options)?;
                    self.sending.insert(operation, (connection, way));
                }
                Event::Sent { id, result, copied, .. } => {
                    let Some(key) = self.sending.remove(&id) else { continue };
                    self.tally.sends += 1;
                    self.tally.zero_copy += u64::from(copied.is_some());
                    self.tally.zero_copy_copied += u64::from(copied == Some(true));
                    match result {
                        Ok(sent) => self.tally.bytes += sent as u64,
                        // Nobody takes what comes: no more of it is received.
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

    fn lane(&mut self, (connection, way): LaneKey) -> Option<&mut Lane> {
        Some(&mut self.connections.get_mut(connection)?.as_mut()?[way as usize])
    }

    fn connect(&mut self, client: TcpStream, server: &str) -> Result<(), Box<dyn Error>> {
        let server = TcpStream::connect(server)?;
        let connection = self.connections.len();
        let lanes = [
            self.lane_between(&client, &server, (connection, Way::There))?,
            self.lane_between(&server, &client, (connection, Way::Back))?,
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
            // It may be closed already.
            let _ = self.driver.close(from);
        }
    }

    /// When all of one way has been sent on, the peer is told; when both are, the connection is
    /// over.
    fn end_if_over(&mut self, key: LaneKey) -> Result<(), Box<dyn Error>> {
        let Some(lane) = self.lane(key).filter(|lane| lane.is_over()) else { return Ok(()) };
        // A peer that is gone needs no telling.
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

    /// Ends the driver; every slot must be home.
    pub fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let drained = self.driver.drain(Duration::from_secs(10))?;
        let leaked: usize = self.arenas.iter().map(|arena| arena.metrics().bytes_live).sum();
        if leaked != 0 || drained.in_flight != 0 {
            return Err(mistake(format!(
                "{leaked} bytes leaked, {} operations left",
                drained.in_flight
            )));
        }
        Ok(())
    }
}
