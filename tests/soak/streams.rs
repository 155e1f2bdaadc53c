//! Random streams, resets, cancellations, slow holders, rings of every kind, dropped drivers,
//! signals, forked children.
//!
//! The content is verified; no slot may leak and none may be quarantined.
//! `URING_ARENA_SOAK_SECONDS` sets the time (2 s), `URING_ARENA_SOAK_SEED` the random numbers. See
//! `scripts/soak`.

use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::driver::driver;
use crate::support::fork::in_child;
use crate::support::signals::{Signals, Target};
use crate::support::{Random, TIMEOUT, arena, assert_all_free, number_from_env};
use bytes::Bytes;
use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena, SocketId};

/// The number of streams that are open at one time.
const STREAMS: usize = 32;

/// The number of threads that hold bytes for a while.
const HOLDERS: usize = 2;

/// Computes the byte at `position` of the stream number `stream`.
fn byte(stream: u64, position: u64) -> u8 {
    let mixed = (position ^ stream.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

fn is_part(stream: u64, start: u64, bytes: &[u8]) -> bool {
    bytes.iter().zip(start..).all(|(&found, position)| found == byte(stream, position))
}

/// The end of a sender.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Finish,
    Reset,
}

fn send(mut socket: TcpStream, stream: u64, len: u64, end: End, mut random: Random) {
    let mut at = 0;
    while at < len {
        let part = (1 + random.below(8000)).min(len - at);
        let bytes: Vec<u8> = (at..at + part).map(|position| byte(stream, position)).collect();
        // The receiver may have closed it.
        if socket.write_all(&bytes).is_err() {
            return;
        }
        at += part;
        if random.one_in(50) {
            std::thread::sleep(Duration::from_micros(random.below(2000)));
        }
    }
    if end == End::Reset {
        // A close that lingers for no time at all is a reset.
        let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
}

/// A stream as its receiver knows it.
struct Stream {
    number: u64,
    at: u64,
    len: u64,
    end: End,
    closed_by_us: bool,
}

struct Held {
    stream: u64,
    start: u64,
    bytes: Bytes,
}

fn start_holder(mut random: Random) -> (Sender<Held>, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel::<Held>();
    let thread = std::thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            // A holder drops its bytes in the end, or all would wait for each other.
            match queue.recv_timeout(Duration::from_millis(1)) {
                Ok(held) => kept.push(held),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if random.one_in(40) {
                std::thread::sleep(Duration::from_micros(random.below(1000)));
            }
            while kept.len() > 3 || (!kept.is_empty() && random.one_in(2)) {
                let Held { stream, start, bytes } =
                    kept.swap_remove(random.below(kept.len() as u64) as usize);
                assert!(is_part(stream, start, &bytes), "stream {stream} differs at {start}");
            }
        }
    });
    (sender, thread)
}

/// One life of a driver.
struct Life<'a> {
    driver: Driver,
    ring: BufferRingId,
    random: &'a mut Random,
    streams: HashMap<SocketId, Stream>,
    senders: Vec<JoinHandle<()>>,
    holders: Vec<Sender<Held>>,
    verified: u64,
}

impl Life<'_> {
    fn open(&mut self, listener: &TcpListener, number: u64) {
        let outgoing = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (incoming, _) = listener.accept().unwrap();
        let len = self.random.below(60_000);
        let end = if self.random.one_in(4) { End::Reset } else { End::Finish };
        let id = self.driver.receive(self.ring, incoming).unwrap();
        self.streams.insert(id, Stream { number, at: 0, len, end, closed_by_us: false });
        let random = Random::new(self.random.next());
        self.senders.push(std::thread::spawn(move || send(outgoing, number, len, end, random)));
    }

    /// Takes all events.
    ///
    /// Returns `true` if there were any.
    fn take(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.driver.next() {
            any = true;
            match event {
                Event::Received { id, bytes, .. } => {
                    let stream = self.streams.get_mut(&id).expect("an open stream");
                    let held = Held { stream: stream.number, start: stream.at, bytes };
                    stream.at += held.bytes.len() as u64;
                    self.verified += held.bytes.len() as u64;
                    assert!(stream.at <= stream.len, "more than was sent");
                    let holder = self.random.below(HOLDERS as u64) as usize;
                    self.holders[holder].send(held).expect("the holder lives");
                }
                Event::Closed { id, error, .. } => {
                    let stream = self.streams.remove(&id).expect("closed once");
                    let Stream { at, len, end, closed_by_us, number } = stream;
                    if !closed_by_us && end == End::Finish {
                        assert!(error.is_none(), "stream {number}: {error:?}");
                        assert_eq!(at, len, "stream {number} is short");
                    }
                }
                other => panic!("{other:?}"),
            }
            if self.random.one_in(300)
                && let Some((&id, stream)) = self.streams.iter_mut().next()
            {
                stream.closed_by_us = true;
                self.driver.close(id).unwrap();
            }
        }
        any
    }

    /// Forks a child that uses and drops its copy of the driver, beside one of its own.
    fn fork(&mut self) {
        in_child(|| {
            assert!(self.driver.next().is_none());
            assert!(self.driver.wait().is_err());
            let own = driver().unwrap();
            drop(std::mem::replace(&mut self.driver, own));
            assert!(!self.driver.wait_timeout(Duration::ZERO).unwrap());
        });
    }
}

fn live(arena: &FixedArena, random: &mut Random, numbers: &mut u64, until: Instant) -> Option<u64> {
    let mut driver = driver()?;
    let options = BufferRing::options()
        .entries(1 << random.below(6))
        .copy_below([0, 0, 200, 5000][random.below(4) as usize])
        .incremental(random.one_in(3))
        .bundles(random.one_in(3));
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let (holders, threads): (Vec<_>, Vec<_>) =
        (0..HOLDERS).map(|_| start_holder(Random::new(random.next()))).unzip();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let streams_max = 1 + random.below(STREAMS as u64) as usize;
    let mut left = random.below(150);
    let dropped_early = random.one_in(3);
    let signals = random.one_in(3).then(|| Signals::to(vec![Target::this_thread()]));
    let forks = random.one_in(4);
    let (streams, senders) = (HashMap::new(), Vec::new());
    let mut life = Life { driver, ring, random, streams, senders, holders, verified: 0 };
    // One slot of 128 bytes, held a millisecond each time, takes long for 150 streams. So a driver
    // counts as stuck only when it makes no progress.
    let mut progress = Instant::now();
    while left > 0 || (!life.streams.is_empty() && !dropped_early) {
        while left > 0 && life.streams.len() < streams_max {
            *numbers += 1;
            left -= 1;
            life.open(&listener, *numbers);
        }
        if forks && life.random.one_in(100) {
            life.fork();
        }
        life.driver.wait_timeout(TIMEOUT).unwrap();
        if life.take() {
            progress = Instant::now();
        }
        assert!(progress.elapsed() < TIMEOUT, "stuck: {arena:?} {:?}", life.driver.metrics());
        if Instant::now() > until {
            break;
        }
    }
    let Life { mut driver, senders, holders, verified, random, .. } = life;
    if random.one_in(2) {
        let drained = driver.drain(TIMEOUT).unwrap();
        assert_eq!((drained.in_flight, drained.quarantined), (0, 0), "{drained:?}");
    }
    drop((driver, holders, listener, signals));
    for thread in senders.into_iter().chain(threads) {
        thread.join().expect("verified");
    }
    Some(verified)
}

/// Returns the random numbers of a soak, and the time at which it ends.
pub(crate) fn settings() -> (Random, Instant) {
    let own_seed = u64::from(std::process::id()) * 2_654_435_761;
    let seed = number_from_env("URING_ARENA_SOAK_SEED", own_seed);
    let time = crate::soak_time();
    eprintln!("URING_ARENA_SOAK_SEED={seed} URING_ARENA_SOAK_SECONDS={}", time.as_secs());
    (Random::new(seed), Instant::now() + time)
}

#[test]
fn soak() {
    let (mut random, until) = settings();
    let (mut lives, mut verified, mut numbers) = (0, 0, 0);
    while Instant::now() < until {
        let arena = arena(1 + random.below(100) as usize, 1 << (7 + random.below(8)));
        let Some(bytes) = live(&arena, &mut random, &mut numbers, until) else { return };
        assert_all_free(&arena);
        verified += bytes;
        lives += 1;
    }
    eprintln!(
        "verified {verified} bytes in {numbers} streams over {lives} drivers; 0 slots leaked, 0 quarantined"
    );
}
