//! Bulk streams: one pinned thread sends as fast as it can over many connections, and a receiver on
//! the other core takes all of it in.
//!
//! Each piece of ours is a `Bytes`. `epoll` reads into one buffer again and again, and hands
//! nothing out: no receiver that hands memory out can do less.
//!
//! At most a few megabytes are on their way at a time. Without that bound the sockets fill up as
//! soon as a receiver falls behind once: their bytes are in no cache any more, so it stays behind,
//! and its acknowledgements make its own core send the next bytes. Which receiver that happens to
//! is chance, and costs three times as much.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use uring_arena::{BufferRing, Driver, DriverBuilder, Event, FixedArena};

use crate::measure::{Stopwatch, be_load, now, pin_to_core};
use crate::report::{OURS, Part, Plot};
use crate::run::{Amount, Answer, Case, Effort, Method, Metric, Sample, Work, bind, metric};

const INTRODUCTION: &str = "\
TCP over loopback, not in lockstep: a thread on one core sends to all connections in turn, as much \
as each takes, and the receiver is on the other core. At most 4 MiB are on their way. Measured is \
the processor time of the receiver's thread for each GB. Our settings are the defaults, with an \
arena of 16 MiB: 256 slots of 64 KiB or 4,096 of 4 KiB. Each piece is a `Bytes`, and is dropped at \
once, or by a thread on the sender's core, whose time is apart. Tokio reads into `BytesMut` of 64 \
KiB on a runtime of one thread. `epoll` reads into one buffer of 64 KiB and hands nothing out. \
Where pieces are dropped elsewhere, there is also an `epoll` that hands an empty `Bytes` on for \
each read: the price of the queue alone. Messages of up to 4 KiB are also received with a driver that \
collects 8 completions, or waits 100 µs for them (`coalesce`). Pieces that are held go to a thread \
that drops each 10 ms after it came: first the arena fills, then slots come back as they are \
dropped.";

/// The bytes of the buffers that others read into.
const READ_BYTES: usize = 64 << 10;

/// The bytes of an arena.
const ARENA_BYTES: usize = 16 << 20;

/// The bytes that one operation of a round is: a round is so many of them.
const UNIT_BYTES: u64 = 1 << 20;

/// The bytes that are sent and not taken yet, at most.
const WINDOW_BYTES: u64 = 4 << 20;

/// The time for which pieces are held.
const HELD: Duration = Duration::from_millis(10);

/// The bytes that come before the slots run out where all pieces are held.
const FIRST_BYTES: u64 = 8 << 20;

/// The completions that a driver collects, and the time that it waits for them.
const COALESCED: (usize, Duration) = (8, Duration::from_micros(100));

/// The bytes after which a receiver says how much it has taken.
const NOTE_BYTES: u64 = 128 << 10;

pub fn part(effort: Effort) -> Part {
    let counts = effort.choose(&[16, 64][..], &[1, 16, 64, 512]);
    let sizes = effort.choose(&[64 << 10][..], &[512, 4096, 64 << 10, 1 << 20]);
    let mut groups = Vec::new();
    for &bytes in sizes {
        for &connections in counts {
            let is_bulk = bytes >= 64 << 10 && [16, 64].contains(&connections);
            for fate in [Fate::Dropped, Fate::Handed, Fate::Held] {
                let stream = Stream { connections, bytes, fate };
                match fate {
                    Fate::Held if connections == 64 && bytes == 64 << 10 => {
                        groups.push(vec![bind(stream, &HOLDERS, effort)]);
                    }
                    Fate::Held => {}
                    Fate::Handed if !is_bulk => {}
                    _ => groups.push(vec![bind(stream, &RECEIVERS, effort)]),
                }
            }
        }
    }
    Part { plots: &[COST], ..Part::new("bulk", "Bulk streams", INTRODUCTION, groups) }
}

const COST: Plot = Plot {
    file: "bulk-by-connections",
    title: "Messages of 64 KiB: receiver's CPU by connections",
    x_label: "connections",
    y_label: "s per GB",
    key: ("bulk-", "x65536"),
    metric: "cpu",
    lines: &[OURS, OURS_SMALL, "epoll + read", "tokio + BytesMut"],
    is_logarithmic: true,
};

const OURS_SMALL: &str = "uring-arena, 4 KiB slots";

const OURS_COALESCED: &str = "uring-arena, 4 KiB slots, coalesced";

/// The fate of a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is dropped at once.
    Dropped,
    /// Another thread drops it at once.
    Handed,
    /// Another thread drops it after [`HELD`].
    Held,
}

/// A number of connections, and the size of the messages that are sent on them.
#[derive(Clone)]
struct Stream {
    connections: usize,
    bytes: usize,
    fate: Fate,
}

impl Case for Stream {
    fn label(&self) -> String {
        let Stream { connections, bytes, fate } = self;
        let (key, words) = match fate {
            Fate::Dropped => ("", ""),
            Fate::Handed => ("-handed", ", dropped elsewhere"),
            Fate::Held => ("-held", ", held for 10 ms"),
        };
        format!("bulk-{connections}x{bytes}{key}: {connections} connections × {bytes} B{words}")
    }

    fn metrics(&self) -> &'static [Metric] {
        const ALL: &[Metric] = &[
            metric("cpu", "receiver's CPU per GB", "s", 1.0),
            metric("rate", "rate", "GB/s", 1.0),
            metric("piece", "bytes of a piece", "KiB", 1.0 / 1024.0),
            metric("dropper", "CPU per GB of the thread that drops", "s", 1.0),
        ];
        const OF_HELD: &[Metric] = &[
            metric("first", "rate of the first 8 MiB", "GB/s", 1.0),
            metric("rate", "rate", "GB/s", 1.0),
            metric("turnover", "bytes that come in 10 ms, of the arena's", "", 1.0),
            metric("shares", "bytes of the connection with most ÷ with least", "", 1.0),
        ];
        match self.fate {
            Fate::Dropped => &ALL[..3],
            Fate::Handed => ALL,
            Fate::Held => OF_HELD,
        }
    }

    fn method(&self, effort: Effort) -> Method {
        // Small messages take ten times as long.
        let units = effort.choose(64, 512) * self.bytes.clamp(4096, 64 << 10) as u64 / (64 << 10);
        let (starts, rounds) = effort.choose((1, 3), (3, 5));
        Method { pinned: false, ..Method::rounds(starts, rounds, Amount::Times(units)) }
    }
}

static RECEIVERS: [Answer<Stream>; 6] = [
    Answer::new(OURS, "256 slots of 64 KiB, default settings", |stream, _| {
        start(stream, |sockets, hand_on| ours(Driver::builder(), sockets, 64 << 10, hand_on))
    }),
    Answer::new(OURS_SMALL, "4,096 slots, default settings", |stream, _| {
        start(stream, |sockets, hand_on| ours(Driver::builder(), sockets, 4096, hand_on))
    }),
    Answer {
        suits: |stream, _| stream.bytes <= 4096,
        ..Answer::new(OURS_COALESCED, "4,096 slots; `coalesce(8, 100 µs)`", |stream, _| {
            let builder = Driver::builder().coalesce(COALESCED.0, COALESCED.1);
            start(stream, |sockets, hand_on| ours(builder, sockets, 4096, hand_on))
        })
    },
    Answer::new("epoll + read", "one buffer of 64 KiB; hands nothing out", |stream, _: &Path| {
        start(stream, |sockets, _| epoll(sockets, Box::new(drop)))
    }),
    Answer {
        suits: |stream, _| stream.fate == Fate::Handed,
        ..Answer::new("epoll, and an empty `Bytes` handed on", "the same buffer", |stream, _| {
            start(stream, epoll)
        })
    },
    Answer::new("tokio + BytesMut", "`read_buf` into 64 KiB, `split().freeze()`", |stream, _| {
        start(stream, tokio_streams)
    }),
];

/// Our receivers, whose pieces are held, beside themselves with pieces that are dropped at once.
static HOLDERS: [Answer<Stream>; 4] = [
    Answer::new(OURS, "256 slots of 64 KiB, all held", |stream, _| {
        start(stream, |sockets, hand_on| ours(Driver::builder(), sockets, 64 << 10, hand_on))
    }),
    Answer::new(OURS_SMALL, "4,096 slots, all held", |stream, _| {
        start(stream, |sockets, hand_on| ours(Driver::builder(), sockets, 4096, hand_on))
    }),
    Answer::new("uring-arena, dropped at once", "256 slots of 64 KiB", |stream, _| {
        let stream = Stream { fate: Fate::Dropped, ..*stream };
        start(&stream, |sockets, hand_on| ours(Driver::builder(), sockets, 64 << 10, hand_on))
    }),
    Answer::new("uring-arena, 4 KiB slots, dropped at once", "4,096 slots", |stream, _| {
        let stream = Stream { fate: Fate::Dropped, ..*stream };
        start(&stream, |sockets, hand_on| ours(Driver::builder(), sockets, 4096, hand_on))
    }),
];

/// A way to hand a piece on.
type HandOn = Box<dyn FnMut(Bytes)>;

/// The bytes and the pieces that came.
struct Tally {
    bytes: u64,
    pieces: u64,
    /// The bytes that the sender was told of.
    noted: u64,
    way: Arc<AtomicU64>,
    /// The time of the first [`FIRST_BYTES`].
    begin: Instant,
    first: Option<Duration>,
    /// The bytes of each connection, of those that tell, until half of all came.
    of: Vec<u64>,
}

impl Tally {
    /// Begins a round. `way` is the number of bytes that are on their way.
    fn new(way: &Arc<AtomicU64>) -> Self {
        let (begin, first, of) = (Instant::now(), None, Vec::new());
        Self { bytes: 0, pieces: 0, noted: 0, way: way.clone(), begin, first, of }
    }

    fn add(&mut self, len: usize) {
        self.bytes += len as u64;
        self.pieces += 1;
        if self.bytes - self.noted >= NOTE_BYTES {
            self.note();
            if self.bytes >= FIRST_BYTES {
                self.first.get_or_insert_with(|| self.begin.elapsed());
            }
        }
    }

    /// Returns the most bytes of a connection by the least.
    fn shares(&self) -> f64 {
        let (most, least) = (self.of.iter().max(), self.of.iter().min());
        most.copied().unwrap_or(1) as f64 / least.copied().unwrap_or(1).max(1) as f64
    }

    fn note(&mut self) {
        self.way.fetch_sub(self.bytes - self.noted, Relaxed);
        self.noted = self.bytes;
    }
}

/// A receiver: takes in so many bytes.
type Receive = Box<dyn FnMut(u64, Tally) -> io::Result<Tally>>;

fn start(
    stream: &Stream,
    receiver: impl FnOnce(Vec<TcpStream>, HandOn) -> io::Result<Receive>,
) -> io::Result<Work> {
    let (outgoing, incoming) = connect(stream.connections)?;
    let way = Arc::new(AtomicU64::new(0));
    let orders = send_on(outgoing, stream.bytes, way.clone());
    let mut dropper = None;
    let hand_on: HandOn = match stream.fate {
        Fate::Handed => {
            let (queue, clock) = drop_elsewhere()?;
            dropper = Some(clock);
            Box::new(move |bytes| queue.send(bytes).unwrap_or_default())
        }
        Fate::Held => {
            let queue = drop_later();
            Box::new(move |bytes| queue.send((Instant::now(), bytes)).unwrap_or_default())
        }
        Fate::Dropped => Box::new(|bytes| drop(std::hint::black_box(bytes))),
    };
    pin_to_core(0);
    let mut receive = receiver(incoming, hand_on)?;
    let connections = stream.connections as u64;
    let is_held = stream.fate == Fate::Held;
    Ok(Box::new(move |units| {
        // As much on each connection.
        let each = (units * UNIT_BYTES).div_ceil(connections);
        let dropping = || dropper.map_or(0.0, |clock| now(clock).as_secs_f64());
        let (wall, cpu, before) = (Instant::now(), Stopwatch::thread(), dropping());
        orders.send(each).map_err(io::Error::other)?;
        let mut tally = receive(each * connections, Tally::new(&way))?;
        let first = tally.first.unwrap_or(wall.elapsed());
        tally.note();
        let gigabytes = tally.bytes as f64 / 1e9;
        let sample = Sample::default().with("cpu", cpu.elapsed().as_secs_f64() / gigabytes);
        let sample = sample.with("rate", gigabytes / wall.elapsed().as_secs_f64());
        let sample = sample.with("piece", tally.bytes as f64 / tally.pieces as f64);
        let turnover = tally.bytes as f64 / wall.elapsed().div_duration_f64(HELD);
        let sample = sample.with("first", FIRST_BYTES as f64 / 1e9 / first.as_secs_f64());
        let sample = sample.with("turnover", turnover / ARENA_BYTES as f64);
        let sample = sample.with("shares", tally.shares());
        if is_held {
            // The next round begins with an arena that is free.
            thread::sleep(2 * HELD);
        }
        Ok(match dropper {
            Some(_) => sample.with("dropper", (dropping() - before) / gigabytes),
            None => sample,
        })
    }))
}

fn connect(count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut pairs = (Vec::new(), Vec::new());
    for _ in 0..count {
        let ours = TcpStream::connect(listener.local_addr()?)?;
        ours.set_nonblocking(true)?;
        pairs.0.push(ours);
        pairs.1.push(listener.accept()?.0);
    }
    Ok(pairs)
}

/// Drops what is sent to it, on the sender's core. Also returns the clock of that thread.
fn drop_elsewhere() -> io::Result<(SyncSender<Bytes>, libc::clockid_t)> {
    let (queue, pieces) = sync_channel(256);
    let thread = thread::spawn(move || {
        be_load();
        pin_to_core(1);
        pieces.into_iter().for_each(drop);
    });
    let mut clock = 0;
    // SAFETY: the thread lives as long as the queue, and the pointer is to a live value.
    match unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut clock) } {
        0 => Ok((queue, clock)),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Drops each piece that is sent to it [`HELD`] after it came, on the sender's core.
fn drop_later() -> Sender<(Instant, Bytes)> {
    let (queue, pieces) = channel::<(Instant, Bytes)>();
    thread::spawn(move || {
        be_load();
        pin_to_core(1);
        for (since, bytes) in pieces {
            thread::sleep(HELD.saturating_sub(since.elapsed()));
            drop(bytes);
        }
    });
    queue
}

/// Sends messages of `size` bytes on all connections in turn, as many bytes on each as is ordered.
fn send_on(sockets: Vec<TcpStream>, size: usize, way: Arc<AtomicU64>) -> Sender<u64> {
    let (orders, ordered) = channel();
    thread::spawn(move || {
        be_load();
        pin_to_core(1);
        for each in ordered {
            send_round(&sockets, size, each, &way).expect("the receiver reads");
        }
        sockets.iter().for_each(|socket| socket.shutdown(Shutdown::Both).unwrap_or_default());
    });
    orders
}

fn send_round(sockets: &[TcpStream], size: usize, each: u64, way: &AtomicU64) -> io::Result<()> {
    let message = vec![0x5A; size];
    let mut left: VecDeque<(usize, u64)> = (0..sockets.len()).map(|at| (at, each)).collect();
    while !left.is_empty() {
        let mut is_stuck = true;
        for _ in 0..left.len() {
            let Some((at, mut bytes)) = left.pop_front() else { break };
            // What is left of the message that was begun.
            let begun = ((each - bytes) % size as u64) as usize;
            let part = (size - begun).min(bytes as usize);
            while way.load(Relaxed) > WINDOW_BYTES {
                thread::sleep(Duration::from_micros(1));
            }
            match (&sockets[at]).write(&message[..part]) {
                Ok(sent) => {
                    is_stuck = false;
                    way.fetch_add(sent as u64, Relaxed);
                    bytes -= sent as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if bytes > 0 {
                left.push_back((at, bytes));
            }
        }
        if is_stuck {
            wait_for_room(left.iter().map(|&(at, _)| &sockets[at]))?;
        }
    }
    Ok(())
}

/// Sleeps until one of the sockets can be written to.
fn wait_for_room<'a>(sockets: impl Iterator<Item = &'a TcpStream>) -> io::Result<()> {
    let poll = |socket: &TcpStream| libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut polled: Vec<libc::pollfd> = sockets.map(poll).collect();
    // SAFETY: the pointer is to so many live entries.
    let answer = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ours(
    builder: DriverBuilder,
    sockets: Vec<TcpStream>,
    slot_bytes: usize,
    mut hand_on: HandOn,
) -> io::Result<Receive> {
    let arena = FixedArena::new(ARENA_BYTES / slot_bytes, slot_bytes).map_err(io::Error::other)?;
    let mut driver = builder.build().map_err(io::Error::other)?;
    let ring = driver.register_buffer_ring(&arena, BufferRing::options());
    let ring = ring.map_err(io::Error::other)?;
    let count = sockets.len();
    for (at, socket) in (0..).zip(sockets) {
        let id = driver.receive(ring, socket);
        let id = id.map_err(|refused| io::Error::other(refused.error))?;
        driver.set_token(id, at).map_err(io::Error::other)?;
    }
    Ok(Box::new(move |wanted, mut tally| {
        tally.of = vec![0; count];
        while tally.bytes < wanted {
            driver.wait().map_err(io::Error::other)?;
            while let Some(event) = driver.next() {
                let Event::Received { bytes, token, .. } = event else {
                    return Err(io::Error::other(format!("{event:?}")));
                };
                if tally.bytes < wanted / 2 {
                    tally.of[token as usize] += bytes.len() as u64;
                }
                tally.add(bytes.len());
                hand_on(bytes);
            }
        }
        Ok(tally)
    }))
}

fn epoll(sockets: Vec<TcpStream>, mut hand_on: HandOn) -> io::Result<Receive> {
    // SAFETY: no pointers are passed.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for (at, socket) in (0..).zip(&sockets) {
        socket.set_nonblocking(true)?;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: at };
        // SAFETY: the pointer is to a live value of the right type.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event) };
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buffer = vec![0u8; READ_BYTES];
    Ok(Box::new(move |wanted, mut tally| {
        while tally.bytes < wanted {
            // SAFETY: the pointer is to 256 live entries.
            let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1) };
            for event in &events[..ready.max(0) as usize] {
                let fd = sockets[event.u64 as usize].as_raw_fd();
                // SAFETY: the pointer is to so many live bytes.
                let read = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), READ_BYTES) };
                match usize::try_from(read) {
                    Ok(len) if len > 0 => {
                        tally.add(len);
                        hand_on(Bytes::new());
                    }
                    _ => return Err(io::Error::last_os_error()),
                }
            }
        }
        Ok(tally)
    }))
}

/// The bytes that the tasks of one runtime have received.
struct Received {
    tally: RefCell<Option<Tally>>,
    hand_on: RefCell<HandOn>,
    /// The bytes at which the round is over.
    wanted: Cell<u64>,
    is_over: Notify,
}

fn tokio_streams(sockets: Vec<TcpStream>, hand_on: HandOn) -> io::Result<Receive> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = LocalSet::new();
    let received = Rc::new(Received {
        tally: RefCell::default(),
        hand_on: RefCell::new(hand_on),
        wanted: Cell::new(u64::MAX),
        is_over: Notify::new(),
    });
    let inside = runtime.enter();
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let (socket, received) = (tokio::net::TcpStream::from_std(socket)?, received.clone());
        tasks.spawn_local(tokio_stream(socket, received));
    }
    drop(inside);
    Ok(Box::new(move |wanted, tally| {
        received.wanted.set(wanted);
        received.tally.replace(Some(tally));
        tasks.block_on(&runtime, received.is_over.notified());
        received.tally.take().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }))
}

async fn tokio_stream(mut socket: tokio::net::TcpStream, received: Rc<Received>) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.reserve(READ_BYTES);
        let Ok(len @ 1..) = socket.read_buf(&mut buffer).await else { return };
        received.hand_on.borrow_mut()(buffer.split().freeze());
        let mut tally = received.tally.borrow_mut();
        let Some(tally) = &mut *tally else { return };
        tally.add(len);
        if tally.bytes >= received.wanted.get() {
            received.is_over.notify_one();
        }
    }
}
