//! The broker: it receives each message once, and sends it on from where it lies.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena, SendOptions, SocketId};

pub const SLOT_BYTES: usize = 16 << 10;
/// Bytes of the longest message.
pub const MESSAGE_MAX: usize = 1 << 20;
/// The part of the arena that messages on their way to one subscriber may keep: from there on it is
/// paused.
const BEHIND_PART: usize = 8;
/// The time that a paused subscriber has to take something.
const PATIENCE: Duration = Duration::from_secs(1);
/// The token of the listener, and of the timer of the metrics. Clients have others.
const LISTENER: u64 = u64::MAX;
const METRICS: u64 = u64::MAX - 1;

/// A client: what it is, and what of it has come.
enum Client {
    /// The line that says it has not come yet.
    New {
        id: SocketId,
        line: Vec<u8>,
    },
    Publisher {
        id: SocketId,
        topic: Rc<str>,
        pieces: VecDeque<Bytes>,
        have: usize,
    },
    Subscriber {
        id: SocketId,
        topic: Rc<str>,
        behind: usize,
        paused: Option<Instant>,
    },
}

/// The counts of what passed through.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    received: u64,
    pub delivered: u64,
    /// The messages that paused subscribers missed.
    missed: u64,
    dropped: u64,
}

/// Returns the bytes on their way to a subscriber from which on it is paused.
pub fn behind_max(slots: usize) -> usize {
    slots * SLOT_BYTES / BEHIND_PART
}

/// The broker: one driver, and what it knows of its clients.
pub struct Broker {
    pub driver: Driver,
    pub arena: FixedArena,
    ring: BufferRingId,
    listener: SocketId,
    clients: HashMap<u64, Client>,
    topics: HashMap<Rc<str>, Vec<u64>>,
    next_token: u64,
    idle: Duration,
    behind_max: usize,
    pub tally: Tally,
}

impl Broker {
    /// Listens. A publisher is dropped after so long a silence.
    pub fn new(
        address: SocketAddr,
        slots: usize,
        idle: Duration,
    ) -> Result<Broker, Box<dyn Error>> {
        let arena = FixedArena::new(slots, SLOT_BYTES)?;
        let mut driver = Driver::builder().entries(1024).operations(1 << 20).build()?;
        let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
        let listener = driver
            .listen(address, LISTENER)
            .map_err(|error| format!("--listen {address}: {error}"))?;
        driver.timer(Instant::now() + Duration::from_secs(1), METRICS)?;
        Ok(Broker {
            driver,
            arena,
            ring,
            listener,
            clients: HashMap::new(),
            topics: HashMap::new(),
            next_token: 0,
            idle,
            behind_max: behind_max(slots),
            tally: Tally::default(),
        })
    }

    pub fn address(&self) -> Result<SocketAddr, Box<dyn Error>> {
        let socket = self.driver.socket(self.listener).ok_or("the listener is closed")?;
        Ok(std::net::TcpListener::from(socket.try_clone_to_owned()?).local_addr()?)
    }

    /// Returns the number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    /// Waits for an event, and handles it. Returns what a person is to be told, if anything.
    pub fn step(&mut self) -> Result<Option<String>, Box<dyn Error>> {
        match self.driver.wait_event()? {
            Event::Accepted { socket, .. } => {
                let token = self.next_token;
                self.next_token += 1;
                let id = self.driver.receive_with(self.ring, socket, token)?;
                self.driver.set_idle_timeout(id, Some(self.idle))?;
                self.clients.insert(token, Client::New { id, line: Vec::new() });
            }
            Event::Received { token, bytes, .. } => self.received(token, bytes)?,
            Event::SentVectored { token, pieces, result, .. } => {
                self.sent(token, pieces.iter().map(|piece| piece.as_ref().len()).sum());
                self.tally.delivered += u64::from(result.is_ok());
            }
            // Subscribers may be silent.
            Event::Idle { id, token, .. }
                if !matches!(self.clients.get(&token), Some(Client::Subscriber { .. })) =>
            {
                self.tally.dropped += 1;
                self.driver.abort(id)?;
            }
            Event::Timer { .. } => return self.each_second().map(Some),
            Event::AcceptFailed { error, .. } => {
                return Ok(Some(format!("clients wait: {error}; raise `ulimit -n`")));
            }
            Event::Closed { token: LISTENER, .. } => return Err("the listener failed".into()),
            Event::Closed { token, .. } => self.forget(token),
            _ => {}
        }
        Ok(None)
    }

    fn received(&mut self, token: u64, mut bytes: Bytes) -> Result<(), Box<dyn Error>> {
        if let Some(Client::New { id, line }) = self.clients.get_mut(&token) {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&bytes.split_to(end.map_or(bytes.len(), |end| end + 1)));
            let (id, text) = (*id, String::from_utf8_lossy(line).into_owned());
            if end.is_none() && line.len() < 256 {
                return Ok(());
            }
            let client = match text.trim_end().split_once(' ') {
                Some(("SUB", topic)) => {
                    self.topics.entry(topic.into()).or_default().push(token);
                    let (topic, behind, paused) = (topic.into(), 0, None);
                    Client::Subscriber { id, topic, behind, paused }
                }
                Some(("PUB", topic)) => {
                    let (topic, pieces, have) = (topic.into(), VecDeque::new(), 0);
                    Client::Publisher { id, topic, pieces, have }
                }
                _ => return Ok(self.driver.abort(id)?),
            };
            self.clients.insert(token, client);
        }
        if let Some(Client::Publisher { pieces, have, .. }) = self.clients.get_mut(&token) {
            *have += bytes.len();
            pieces.push_back(bytes);
        }
        while let Some(Client::Publisher { id, topic, pieces, have }) = self.clients.get_mut(&token)
        {
            match next_message(pieces, have) {
                None => break,
                Some(Ok(message)) => {
                    let topic = Rc::clone(topic);
                    self.tally.received += 1;
                    self.publish(&topic, &message);
                }
                Some(Err(TooLong)) => {
                    let id = *id;
                    return Ok(self.driver.abort(id)?);
                }
            }
        }
        Ok(())
    }

    /// Sends the pieces of a message to each subscriber that is not paused.
    fn publish(&mut self, topic: &str, message: &[Bytes]) {
        let len: usize = message.iter().map(Bytes::len).sum();
        for token in self.topics.get(topic).into_iter().flatten() {
            let Some(Client::Subscriber { id, behind, paused, .. }) = self.clients.get_mut(token)
            else {
                continue;
            };
            if paused.is_some() {
                self.tally.missed += 1;
                continue;
            }
            // An error means that the subscriber has gone, which an event says.
            let pieces = message.iter().cloned();
            if self.driver.send_vectored(*id, pieces, SendOptions::new()).is_ok() {
                *behind += len;
                *paused = (*behind > self.behind_max).then(Instant::now);
            }
        }
    }

    fn sent(&mut self, token: u64, bytes: usize) {
        if let Some(Client::Subscriber { behind, paused, .. }) = self.clients.get_mut(&token) {
            *behind -= bytes;
            if *behind <= self.behind_max / 2 {
                *paused = None;
            } else if let Some(since) = paused {
                *since = Instant::now();
            }
        }
    }

    /// Drops the subscribers that took nothing for a while. Returns the counts in words.
    fn each_second(&mut self) -> Result<String, Box<dyn Error>> {
        for client in self.clients.values() {
            if let Client::Subscriber { id, paused: Some(since), .. } = client
                && since.elapsed() >= PATIENCE
            {
                self.tally.dropped += 1;
                self.driver.abort(*id)?;
            }
        }
        let Tally { received, delivered, missed, dropped } = self.tally;
        self.driver.timer(Instant::now() + Duration::from_secs(1), METRICS)?;
        Ok(format!(
            "{} clients; {received} messages received, {delivered} delivered, {missed} missed, \
             {dropped} dropped",
            self.clients.len()
        ))
    }

    fn forget(&mut self, token: u64) {
        if let Some(Client::Subscriber { topic, .. }) = self.clients.remove(&token)
            && let Some(tokens) = self.topics.get_mut(&*topic)
        {
            tokens.retain(|&of| of != token);
        }
    }
}

/// A message is longer than the broker takes.
struct TooLong;

/// Takes the next message out of what has come, with its length in front. `None` if it is not
/// whole.
fn next_message(
    pieces: &mut VecDeque<Bytes>,
    have: &mut usize,
) -> Option<Result<Vec<Bytes>, TooLong>> {
    let mut head = pieces.iter().flatten().copied();
    let head = [head.next()?, head.next()?, head.next()?, head.next()?];
    let mut left = 4 + u32::from_be_bytes(head) as usize;
    if left > 4 + MESSAGE_MAX {
        return Some(Err(TooLong));
    }
    if *have < left {
        return None;
    }
    *have -= left;
    let mut message = Vec::new();
    while left > 0 {
        let piece = pieces.front_mut()?;
        // A part of the slot that both messages lie in: nothing is copied.
        let part = piece.split_to(left.min(piece.len()));
        if piece.is_empty() {
            pieces.pop_front();
        }
        left -= part.len();
        message.push(part);
    }
    Some(Ok(message))
}
