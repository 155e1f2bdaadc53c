//! Everything at once, for as long as asked: random streams, resets, cancellations, slow holders,
//! rings of every kind, drivers that are dropped in the middle. Content is verified; nothing may
//! leak and nothing may need quarantine.
//!
//! `URING_ARENA_SOAK_SECONDS` says how long (2), `URING_ARENA_SOAK_SEED` what happens. See
//! `scripts/soak`.

use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{
    assert_all_free,
    driver::{arena, driver},
};
use bytes::Bytes;
use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena, SocketId};

/// Streams open at one time.
const STREAMS: usize = 32;

/// Threads that hold bytes for a while.
const HOLDERS: usize = 2;

/// A small random source: what happens hangs on the seed alone, but for the threads' timing.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// The byte at `position` of the stream number `stream`.
fn byte(stream: u64, position: u64) -> u8 {
    let mixed = (position ^ stream.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

fn is_part(stream: u64, start: u64, bytes: &[u8]) -> bool {
    bytes.iter().zip(start..).all(|(&found, position)| found == byte(stream, position))
}

/// How a sender ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Finish,
    Reset,
}

fn send(mut socket: TcpStream, stream: u64, len: u64, end: End, mut dice: Dice) {
    let mut at = 0;
    while at < len {
        let part = (1 + dice.roll(8000)).min(len - at);
        let bytes: Vec<u8> = (at..at + part).map(|position| byte(stream, position)).collect();
        // The receiver may have closed it.
        if socket.write_all(&bytes).is_err() {
            return;
        }
        at += part;
        if dice.one_in(50) {
            std::thread::sleep(Duration::from_micros(dice.roll(2000)));
        }
    }
    if end == End::Reset {
        // A close that lingers for no time at all is a reset.
        let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
}

/// What the receiver knows of a stream.
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

fn start_holder(mut dice: Dice) -> (Sender<Held>, JoinHandle<()>) {
    let (sender, queue) = mpsc::channel::<Held>();
    let thread = std::thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            // Nobody is held for ever: else everybody would wait for each other.
            match queue.recv_timeout(Duration::from_millis(1)) {
                Ok(held) => kept.push(held),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if dice.one_in(40) {
                std::thread::sleep(Duration::from_micros(dice.roll(1000)));
            }
            while kept.len() > 3 || (!kept.is_empty() && dice.one_in(2)) {
                let Held { stream, start, bytes } =
                    kept.swap_remove(dice.roll(kept.len() as u64) as usize);
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
    dice: &'a mut Dice,
    streams: HashMap<SocketId, Stream>,
    senders: Vec<JoinHandle<()>>,
    holders: Vec<Sender<Held>>,
    verified: u64,
}

impl Life<'_> {
    fn open(&mut self, listener: &TcpListener, number: u64) {
        let outgoing = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (incoming, _) = listener.accept().unwrap();
        let len = self.dice.roll(60_000);
        let end = if self.dice.one_in(4) { End::Reset } else { End::Finish };
        let id = self.driver.receive(self.ring, incoming).unwrap();
        self.streams.insert(id, Stream { number, at: 0, len, end, closed_by_us: false });
        let dice = Dice(self.dice.roll(u64::MAX) | 1);
        self.senders.push(std::thread::spawn(move || send(outgoing, number, len, end, dice)));
    }

    /// Takes all events; true if there were any.
    fn take(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.driver.next() {
            any = true;
            match event {
                Event::Received { id, bytes } => {
                    let stream = self.streams.get_mut(&id).expect("an open stream");
                    let held = Held { stream: stream.number, start: stream.at, bytes };
                    stream.at += held.bytes.len() as u64;
                    self.verified += held.bytes.len() as u64;
                    assert!(stream.at <= stream.len, "more than was sent");
                    let holder = self.dice.roll(HOLDERS as u64) as usize;
                    self.holders[holder].send(held).expect("the holder lives");
                }
                Event::Closed { id, error } => {
                    let stream = self.streams.remove(&id).expect("closed once");
                    let Stream { at, len, end, closed_by_us, number } = stream;
                    if !closed_by_us && end == End::Finish {
                        assert!(error.is_none(), "stream {number}: {error:?}");
                        assert_eq!(at, len, "stream {number} is short");
                    }
                }
                other => panic!("{other:?}"),
            }
            if self.dice.one_in(300)
                && let Some((&id, stream)) = self.streams.iter_mut().next()
            {
                stream.closed_by_us = true;
                self.driver.close(id).unwrap();
            }
        }
        any
    }
}

fn live(arena: &FixedArena, dice: &mut Dice, numbers: &mut u64, until: Instant) -> Option<u64> {
    let mut driver = driver()?;
    let options = BufferRing::options()
        .entries(1 << dice.roll(6))
        .copy_below([0, 0, 200, 5000][dice.roll(4) as usize])
        .incremental(dice.one_in(3))
        .bundles(dice.one_in(3));
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let (holders, threads): (Vec<_>, Vec<_>) =
        (0..HOLDERS).map(|_| start_holder(Dice(dice.roll(u64::MAX) | 1))).unzip();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let streams_max = 1 + dice.roll(STREAMS as u64) as usize;
    let mut left = dice.roll(150);
    let dropped_early = dice.one_in(3);
    let (streams, senders) = (HashMap::new(), Vec::new());
    let mut life = Life { driver, ring, dice, streams, senders, holders, verified: 0 };
    // One slot of 128 bytes, held a millisecond each time, takes its time for 150 streams: stuck is
    // who makes no progress.
    let mut progress = Instant::now();
    while left > 0 || (!life.streams.is_empty() && !dropped_early) {
        while left > 0 && life.streams.len() < streams_max {
            *numbers += 1;
            left -= 1;
            life.open(&listener, *numbers);
        }
        life.driver.wait_timeout(crate::support::driver::PATIENCE).unwrap();
        if life.take() {
            progress = Instant::now();
        }
        assert!(
            progress.elapsed() < crate::support::driver::PATIENCE,
            "stuck: {arena:?} {:?}",
            life.driver.metrics()
        );
        if Instant::now() > until {
            break;
        }
    }
    let Life { mut driver, senders, holders, verified, dice, .. } = life;
    if dice.one_in(2) {
        let drained = driver.drain(crate::support::driver::PATIENCE).unwrap();
        assert_eq!((drained.in_flight, drained.quarantined), (0, 0), "{drained:?}");
    }
    drop((driver, holders, listener));
    for thread in senders.into_iter().chain(threads) {
        thread.join().expect("verified");
    }
    Some(verified)
}

#[test]
fn soak() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = number("URING_ARENA_SOAK_SECONDS").unwrap_or(2);
    let seed = number("URING_ARENA_SOAK_SEED")
        .unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761);
    eprintln!("URING_ARENA_SOAK_SEED={seed} URING_ARENA_SOAK_SECONDS={seconds}");
    let mut dice = Dice(seed | 1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut lives, mut verified, mut numbers) = (0, 0, 0);
    while Instant::now() < until {
        let arena = arena(1 + dice.roll(100) as usize, 1 << (7 + dice.roll(8)));
        let Some(bytes) = live(&arena, &mut dice, &mut numbers, until) else { return };
        assert_all_free(&arena);
        verified += bytes;
        lives += 1;
    }
    eprintln!(
        "verified {verified} bytes in {numbers} streams over {lives} drivers; 0 slots leaked, 0 quarantined"
    );
}
