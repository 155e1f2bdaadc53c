//! The proxy itself: pairs of sockets, and the sends from one to the other.
//!
//! A client costs the others nothing, whatever it does:
//!
//! * A connection is set up whole or not at all. Its number is never given to another one.
//! * A lane holds few messages and few bytes (`lane.rs`). A full lane is paused: further bytes stay
//!   in the socket, and then with the sender.
//! * All lanes of a direction hold at most half of its arena. Further messages are copied to the
//!   heap, which frees their slots at once. So a receive always finds a slot.
//! * A connection that failed is reset on the other side too.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use uring_arena::{
    BufferRing, BufferRingId, Driver, Event, Feature, FixedArena, OperationId, Probe, SendOptions,
    SocketId,
};

use crate::connector::Connector;
use crate::lane::{Connection, DIRECTIONS, Direction, Failure, LANE_MESSAGES, Lane};
use crate::options::Options;
use crate::support::{self, Warning, check_all_free, mistake};

/// The length below which a message is copied to the heap.
///
/// A copied message does not keep a slot in use until the peer reads it.
const COPY_BELOW: usize = 512;
/// The time that bytes of a connection that failed have to reach the other peer.
const LINGER: Duration = Duration::from_secs(1);
/// The time between two looks at connections that stand still.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The descriptors that a connection takes: one id a socket, to receive from and to send on.
pub const DESCRIPTORS_PER_CLIENT: usize = 2;

/// The number of a connection, and the direction. The number is never used again.
type LaneKey = (u64, Direction);

/// A message on its way.
struct Sending {
    key: LaneKey,
    bytes: usize,
    /// The message keeps a slot of its direction's arena.
    in_slot: bool,
}

/// The counts of what passed through.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub bytes: u64,
    pub sends: u64,
    pub zero_copy: u64,
    pub zero_copy_copied: u64,
    /// The connections that are over, or were refused.
    pub over: usize,
}

pub struct Relay {
    driver: Driver,
    arenas: [FixedArena; 2],
    rings: [BufferRingId; 2],
    options: SendOptions,
    listener: SocketId,
    /// There are as many clients as may be.
    is_full: bool,
    connector: Connector,
    /// The connections at a time, and those that still wait for the server.
    clients_max: usize,
    connecting: usize,
    connections: HashMap<u64, Connection>,
    next_number: u64,
    receiving: HashMap<SocketId, LaneKey>,
    sending: HashMap<OperationId, Sending>,
    /// The slots of each direction that messages on their way keep, and the most that they may.
    slots_kept: [usize; 2],
    slots_kept_max: usize,
    /// The connections with a lane that is paused or over, or with a failure. Of these no event
    /// may come, even if a socket fails.
    standing: HashSet<u64>,
    looked: Instant,
    refusals: Warning,
    tally: Tally,
}

impl Relay {
    /// Builds the proxy, which accepts at most `clients_max` clients at a time on `listener`.
    pub fn new(
        options: &Options,
        listener: TcpListener,
        server: std::net::SocketAddr,
        clients_max: usize,
    ) -> Result<Relay, Box<dyn Error>> {
        let arena = || {
            FixedArena::with_slot_capacity(options.slots, options.slot_bytes)
                .alignment(4096)
                .build()
        };
        let arenas = [arena()?, arena()?];
        // One connection and one message at a time: a pause is exact, nothing overtakes it.
        let probe = Probe::shared()?.without(Feature::AcceptMultishot);
        // Two receives a connection and the sends of two lanes; half as many are on their way out.
        let operations = clients_max * 2 * (1 + LANE_MESSAGES) * 3 / 2 + 64;
        let mut driver =
            Driver::builder().probe(probe).multishot(false).operations(operations).build()?;
        for arena in &arenas {
            // Zero-copy sends need registered memory; sends from other memory are ordinary ones.
            driver.register(arena)?;
        }
        let ring = BufferRing::options().copy_below(COPY_BELOW);
        let rings = [
            driver.register_buffer_ring(&arenas[0], ring)?,
            driver.register_buffer_ring(&arenas[1], ring)?,
        ];
        let connector = Connector::start(server, driver.waker()?)?;
        let listener = driver.accept(listener)?;
        Ok(Relay {
            driver,
            arenas,
            rings,
            options: SendOptions::new().zero_copy_from(options.zero_copy_from),
            listener,
            is_full: false,
            connector,
            clients_max,
            connecting: 0,
            connections: HashMap::new(),
            next_number: 0,
            receiving: HashMap::new(),
            sending: HashMap::new(),
            slots_kept: [0; 2],
            slots_kept_max: options.slots.get() / 2,
            standing: HashSet::new(),
            looked: Instant::now(),
            refusals: Warning::default(),
            tally: Tally::default(),
        })
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Waits for events, but not longer than `limit`, and handles them.
    pub fn turn(&mut self, limit: Option<Duration>) -> Result<(), Box<dyn Error>> {
        match limit.or((!self.standing.is_empty()).then_some(LOOK_EVERY)) {
            Some(limit) => drop(self.driver.wait_timeout(limit)?),
            None => self.driver.wait()?,
        }
        while let Some(event) = self.driver.next() {
            match event {
                Event::Accepted { socket, .. } => self.connect(socket.into())?,
                Event::Received { id, bytes, .. } => self.received(id, bytes),
                Event::Sent { id, result, copied, .. } => self.sent(id, result.ok(), copied),
                // The listener stays, and the clients wait in its queue.
                Event::AcceptFailed { error, .. } => {
                    self.refusals
                        .print(format_args!("clients wait: {error}; {}", support::MORE_ROOM));
                }
                Event::Closed { id, error, .. } if id == self.listener => {
                    let reason = error.map_or("it was closed".into(), |error| error.to_string());
                    return Err(mistake(format!("the listener failed: {reason}")));
                }
                Event::Finished { id, .. } => self.ended(id, false),
                Event::Closed { id, error, .. } => self.ended(id, error.is_some()),
                _ => {}
            }
        }
        while let Some((client, server)) = self.connector.next() {
            self.connecting -= 1;
            let set_up = server.map_err(Into::into).and_then(|server| self.set_up(client, server));
            if let Err(error) = set_up {
                self.refuse(&*error);
            }
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look();
        }
        self.accept_if_room();
        Ok(())
    }

    /// Drains the driver. Returns an error unless every slot is free.
    pub fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let drained = self.driver.drain(Duration::from_secs(10))?;
        self.arenas.iter().try_for_each(|arena| check_all_free(arena, drained.in_flight))
    }
}

/// Clients that come.
impl Relay {
    /// Asks for a connection to the server. Until both stand, a close resets either.
    fn connect(&mut self, client: TcpStream) -> Result<(), Box<dyn Error>> {
        let prepared = client
            .set_nodelay(true)
            .and_then(|()| Ok(sockopt::set_socket_keepalive(&client, true)?))
            .and_then(|()| reset_on_close(&client));
        match prepared {
            Ok(()) => {
                self.connecting += 1;
                self.connector.connect(client)?;
            }
            Err(error) => self.refuse(&error),
        }
        Ok(())
    }

    fn refuse(&mut self, error: &dyn Error) {
        self.tally.over += 1;
        self.refusals.print(format_args!("a client was refused: {error}"));
    }

    /// Begins to relay between `client` and `server`: whole, or not at all.
    fn set_up(&mut self, client: TcpStream, server: TcpStream) -> Result<(), Box<dyn Error>> {
        let mut sockets = Vec::new();
        let driver = &mut self.driver;
        let [to_server, to_client] = self.rings;
        let set_up = || {
            sockets.push(driver.receive(to_server, client)?);
            sockets.push(driver.receive(to_client, server)?);
            for &id in &sockets {
                // Each direction has an end of its own.
                driver.set_half_open(id, true)?;
                let socket = driver.socket(id).ok_or("it is closed")?;
                sockopt::set_socket_linger(socket, None)?;
            }
            Ok(())
        };
        match set_up() {
            Ok(()) => {
                let number = self.next_number;
                self.next_number += 1;
                self.receiving.insert(sockets[0], (number, Direction::ToServer));
                self.receiving.insert(sockets[1], (number, Direction::ToClient));
                let lanes = [Lane::new(sockets[0], sockets[1]), Lane::new(sockets[1], sockets[0])];
                self.connections.insert(number, Connection { lanes, failure: None });
                Ok(())
            }
            Err(error) => {
                for socket in sockets {
                    let _ = self.driver.close(socket);
                }
                Err(error)
            }
        }
    }

    /// Pauses the listener while there are as many clients as may be.
    fn accept_if_room(&mut self) {
        let is_full = self.connections.len() + self.connecting >= self.clients_max;
        if is_full != self.is_full {
            self.is_full = is_full;
            // An error means that the listener has failed, which an event says.
            let _ = match is_full {
                true => self.driver.pause(self.listener),
                false => self.driver.resume(self.listener),
            };
        }
    }
}

/// Bytes, and the ends of connections.
impl Relay {
    fn received(&mut self, id: SocketId, mut bytes: Bytes) {
        let Some(&key @ (number, direction)) = self.receiving.get(&id) else { return };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let lane = &mut connection.lanes[direction as usize];
        let kept = &mut self.slots_kept[direction as usize];
        let mut in_slot = self.arenas[direction as usize].locate(&bytes).is_some();
        if in_slot && *kept >= self.slots_kept_max {
            bytes = Bytes::copy_from_slice(&bytes);
            in_slot = false;
        }
        let len = bytes.len();
        let Ok(operation) = self.driver.send_with(lane.to, bytes, self.options) else {
            return self.abort(number);
        };
        *kept += usize::from(in_slot);
        self.sending.insert(operation, Sending { key, bytes: len, in_slot });
        if lane.take_in(len) {
            // An error means that the socket has failed, which an event says.
            let _ = self.driver.pause(id);
            self.standing.insert(number);
        }
    }

    fn sent(&mut self, id: OperationId, result: Option<usize>, copied: Option<bool>) {
        let Some(Sending { key, bytes, in_slot }) = self.sending.remove(&id) else { return };
        let (number, direction) = key;
        self.slots_kept[direction as usize] -= usize::from(in_slot);
        self.tally.sends += 1;
        self.tally.bytes += result.unwrap_or(0) as u64;
        self.tally.zero_copy += u64::from(copied.is_some());
        self.tally.zero_copy_copied += u64::from(copied == Some(true));
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let lane = &mut connection.lanes[direction as usize];
        if lane.let_go(bytes) {
            let _ = self.driver.resume(lane.from);
        }
        match result == Some(bytes) {
            true => self.end_if_over(key),
            // The socket that is sent to failed. What it sent before is still to come.
            false => self.fail(number, direction.other()),
        }
    }

    fn ended(&mut self, id: SocketId, has_failed: bool) {
        let Some(key @ (number, direction)) = self.receiving.remove(&id) else { return };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.lanes[direction as usize].ended = true;
        match has_failed {
            false => self.end_if_over(key),
            true => self.fail(number, direction),
        }
    }

    /// Ends the direction, and then the connection, if all bytes have been sent on.
    fn end_if_over(&mut self, (number, direction): LaneKey) {
        let Some(connection) = self.connections.get(&number) else { return };
        let lanes = &connection.lanes;
        if let Some(failure) = &connection.failure {
            if lanes[failure.last as usize].is_over() {
                self.abort(number);
            }
            return;
        }
        let lane = &lanes[direction as usize];
        if !lane.is_over() {
            return;
        }
        self.standing.insert(number);
        // An error means that the peer has closed the connection already.
        let _ = self.driver.shutdown_write(lane.to);
        if lanes.iter().all(Lane::is_over) {
            for lane in lanes {
                let _ = self.driver.close(lane.to);
            }
            self.connections.remove(&number);
            self.tally.over += 1;
        }
    }

    /// Takes note that a socket failed: the one that the lane `last` receives from.
    fn fail(&mut self, number: u64, last: Direction) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match &connection.failure {
            None => {
                let since = Instant::now();
                connection.failure = Some(Failure { last, since });
                self.standing.insert(number);
                // Nobody is left to send to. What is to be sent to this socket still goes out.
                let _ = self.driver.pause(connection.lanes[last.other() as usize].from);
            }
            Some(failure) if failure.last != last => return self.abort(number),
            Some(_) => {}
        }
        self.end_if_over((number, last));
    }

    /// Resets both sockets of a connection.
    fn abort(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        for lane in connection.lanes {
            self.receiving.remove(&lane.from);
            let _ = self.driver.abort(lane.from);
        }
        self.tally.over += 1;
    }

    /// Looks after what no event may come of.
    fn look(&mut self) {
        self.looked = Instant::now();
        for number in self.standing.iter().copied().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get(&number) else {
                self.standing.remove(&number);
                continue;
            };
            let lanes = &connection.lanes;
            let mut unheard = DIRECTIONS.into_iter().filter(|&direction| {
                let lane = &lanes[direction as usize];
                lane.is_paused || lane.ended
            });
            let failed = unheard.clone().find(|&direction| {
                let from = self.driver.socket(lanes[direction as usize].from);
                from.is_some_and(has_failed)
            });
            let failure = connection.failure.as_ref();
            if failure.is_some_and(|failure| failure.since.elapsed() >= LINGER) {
                self.abort(number);
            } else if let Some(direction) = failed {
                self.fail(number, direction);
            } else if failure.is_none() && unheard.next().is_none() {
                self.standing.remove(&number);
            }
        }
    }
}

/// Makes the close of a socket, once and for all its descriptors, a reset.
fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// Returns whether a socket has an error, which nobody is told who does not receive from it.
fn has_failed(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&no_time)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}
