//! A tokio pool on both kinds of runtime: slow readers, stuck peers, cancels, resets, shutdowns,
//! runtimes that end, and a limit of descriptors that is too low now and then.
//!
//! Every byte is right, or both sides are told. No connection is left open, no slot is lost.
//! `URING_ARENA_SOAK_SECONDS` sets the time (2 s), `URING_ARENA_SOAK_SEED` the random numbers,
//! `URING_ARENA_SOAK_ENGINE` the engine (`ring` or `readiness`; either by default),
//! `URING_ARENA_SOAK_CONNECTIONS` the most connections of a pool (20). See `scripts/soak`.
//!
//! A watchdog tells a hang from slowness: it looks for progress, however slow, and says whether the
//! runtime or only its tasks stand still.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream as StdTcpStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use futures::future::{Either, select};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uring_arena::tokio::{Engine, Pool, RecvStream, SendHalf};
use uring_arena::{BufferRing, FixedArena, SendOptions};

use crate::streams::settings;
use crate::support::limits::leave_descriptors;
use crate::support::{Random, assert_all_free, number_from_env, paged_arena};

/// The time without any progress after which something hangs.
const HANG: Duration = Duration::from_secs(60);

/// The time between two looks of the watchdog.
const ROUND: Duration = Duration::from_millis(500);

/// The count of what has happened: bytes that were verified, and tasks that ended.
static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// The ticks of the runtime that a pool runs in.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// The stage of the life that is under way, for the watchdog's message.
static STAGE: Mutex<String> = Mutex::new(String::new());

/// The peers that are there: by the number of the stream that each reads, what it does. Behind
/// them, by the number of the stream, the tasks of the pool's runtime.
static PEERS: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());

/// The number of the first task of the pool's runtime.
const NEAR: u64 = 1 << 40;

fn forget(peer: u64) {
    PEERS.lock().unwrap().remove(&peer);
}

fn note(peer: u64, text: impl Into<String>) {
    PEERS.lock().unwrap().insert(peer, text.into());
}

fn progress(steps: u64) {
    PROGRESS.fetch_add(steps, Ordering::Relaxed);
}

fn stage(text: impl Into<String>) {
    *STAGE.lock().unwrap() = text.into();
    progress(1);
}

/// Ends the process if nothing happens for long.
fn watch_for_hangs() {
    std::thread::spawn(|| {
        // A process that is stopped for a while does not hang: rounds are counted, not the time.
        let (mut last, mut rounds) = ((u64::MAX, 0), 0);
        loop {
            std::thread::sleep(ROUND);
            let now = PROGRESS.load(Ordering::Relaxed);
            let ticks = TICKS.load(Ordering::Relaxed);
            rounds += 1;
            if now != last.0 {
                (last, rounds) = ((now, ticks), 0);
            } else if rounds * ROUND > HANG {
                let what = if ticks == last.1 { "the runtime stands still" } else { "tasks wait" };
                eprintln!("HANG for {HANG:?}, {what}: {}", STAGE.lock().unwrap());
                eprintln!("{:#?}", PEERS.lock().unwrap());
                std::process::exit(101);
            }
        }
    });
}

/// Computes the byte at `position` of the stream number `stream`.
fn byte(stream: u64, position: u64) -> u8 {
    let mixed = (position ^ stream.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

fn part(stream: u64, start: u64, len: u64) -> Vec<u8> {
    (start..start + len).map(|position| byte(stream, position)).collect()
}

#[track_caller]
fn verify(stream: u64, start: u64, bytes: &[u8]) {
    let is_right =
        bytes.iter().zip(start..).all(|(&found, position)| found == byte(stream, position));
    assert!(is_right, "stream {stream} differs behind {start}");
    progress(bytes.len() as u64);
}

/// One direction of a connection, as both of its ends know it.
#[derive(Default)]
struct Direction {
    number: u64,
    /// The bytes that the sender was told are queued or written.
    given: AtomicU64,
    /// The sender gave its end in good order.
    is_finished: AtomicBool,
    /// The sender has reset the connection.
    is_reset: AtomicBool,
    /// The other direction was told of a reset: the kernel tells it once a socket.
    is_told: AtomicBool,
}

impl Direction {
    fn new(number: u64) -> Arc<Direction> {
        Arc::new(Direction { number, ..Direction::default() })
    }

    fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }

    fn give(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::SeqCst);
        progress(1);
    }
}

/// The sending side in the pool.
struct NearSender {
    half: SendHalf,
    out: Arc<Direction>,
    arena: FixedArena,
    random: Random,
}

impl NearSender {
    fn payload(&mut self, len: u64) -> uring_arena::Payload {
        let bytes = part(self.out.number, self.out.given(), len);
        match self.arena.allocate() {
            Ok(mut buffer) if len as usize <= buffer.capacity() && self.random.one_in(2) => {
                buffer.put_slice(&bytes);
                if self.random.one_in(2) { buffer.into() } else { buffer.freeze().into() }
            }
            _ => Bytes::from(bytes).into(),
        }
    }

    /// Sends or writes a part, in one of the ways that there are. Returns how many bytes it took:
    /// none if it was given up.
    async fn step(&mut self) -> io::Result<u64> {
        let max = if self.random.one_in(20) { 400_000 } else { 20_000 };
        let len = 1 + self.random.below(max);
        let options = SendOptions::new().zero_copy_from(1 << self.random.below(20));
        let patience =
            self.random.one_in(4).then(|| Duration::from_micros(self.random.below(3000)));
        let payload = self.payload(len);
        let (half, number) = (&mut self.half, NEAR + self.out.number);
        let step = async {
            match self.random.below(4) {
                0 => {
                    note(number, "writes");
                    half.write(payload.as_ref()).await.map(|wrote| wrote as u64)
                }
                1 => {
                    note(number, "reserves");
                    let permit = half.reserve(len as usize).await?;
                    permit.send_with(payload, options).map(|()| len)
                }
                _ => {
                    note(number, "sends");
                    half.send_with(payload, options).await.map(|()| len)
                }
            }
        };
        within(patience, step).await.unwrap_or(Ok(0))
    }

    async fn run(mut self, kept: Arc<Mutex<Vec<SendHalf>>>) {
        let total = self.random.below(600_000);
        while self.out.given() < total {
            match self.step().await {
                Ok(bytes) => self.out.give(bytes),
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                    note(NEAR + self.out.number, format!("tries again: {error}"));
                    sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return self.assert_failed(error).await,
            }
            if self.random.one_in(30) {
                note(NEAR + self.out.number, "flushes");
                let patience = Duration::from_millis(self.random.below(20));
                if let Ok(Err(error)) = timeout(patience, self.half.flush()).await {
                    return self.assert_failed(error).await;
                }
            }
        }
        let number = self.out.number;
        note(NEAR + number, "ends");
        match self.random.below(4) {
            0 => {
                self.out.is_reset.store(true, Ordering::SeqCst);
                self.half.abort();
            }
            1 => kept.lock().unwrap().push(self.half),
            2 => {
                let patience = Duration::from_millis(self.random.below(300));
                match timeout(patience, self.half.shutdown()).await {
                    Ok(Err(error)) => return self.assert_failed(error).await,
                    Ok(Ok(())) => self.out.is_finished.store(true, Ordering::SeqCst),
                    // It goes on.
                    Err(_) => {}
                }
            }
            _ => drop(self.half),
        }
        forget(NEAR + number);
        progress(1);
    }

    /// Fails unless every further call is told of the failure.
    async fn assert_failed(mut self, error: io::Error) {
        note(NEAR + self.out.number, format!("failed: {error}"));
        for _ in 0..2 {
            let late = self.half.send(Bytes::from_static(b"late")).await.unwrap_err();
            assert_eq!(late.kind(), error.kind(), "{error}, then {late}");
            assert!(self.half.flush().await.is_err());
            assert!(self.half.shutdown().await.is_err());
        }
        forget(NEAR + self.out.number);
        progress(1);
    }
}

/// Reads a stream of the pool, with pauses and futures that are dropped.
async fn read_near(mut stream: RecvStream, from: Arc<Direction>, mut random: Random) {
    let (mut at, mut held) = (0, Vec::new());
    let gives_up_at = if random.one_in(3) { random.below(500_000) } else { u64::MAX };
    while at < gives_up_at {
        // Who holds slots does not wait for more of them.
        let is_short = !held.is_empty() || random.one_in(3);
        let patience = is_short.then(|| Duration::from_micros(random.below(2000)));
        note(NEAR + from.number, format!("the stream of the pool, behind {at}, {patience:?}"));
        let Some(next) = within(patience, stream.try_next()).await else {
            held.clear();
            continue;
        };
        match next {
            Ok(Some(bytes)) => {
                verify(from.number, at, &bytes);
                at += bytes.len() as u64;
                held.push((at, bytes));
            }
            Ok(None) => {
                // An abort on this side may overtake the peer's note of its last write.
                while from.given() < at {
                    sleep(Duration::from_millis(1)).await;
                }
                assert_eq!(at, from.given(), "the end of stream {} came early", from.number);
                break;
            }
            Err(_) => break,
        }
        if held.len() > 2 || random.one_in(4) {
            for (end, bytes) in held.drain(..) {
                verify(from.number, end - bytes.len() as u64, &bytes);
            }
        }
        if random.one_in(30) {
            sleep(Duration::from_millis(random.below(20))).await;
        }
    }
    forget(NEAR + from.number);
    progress(1);
}

/// A peer of the pool.
struct Peer<S> {
    socket: S,
    from: Arc<Direction>,
    to: Arc<Direction>,
    random: Random,
    /// Becomes `true` when peers that stand still go on.
    go_on: watch::Receiver<bool>,
    knows_resets: bool,
    reset: fn(&S),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn run(self) {
        let Peer { socket, from, to, mut random, go_on, knows_resets, reset } = self;
        let stops_at = if random.one_in(6) { random.below(300_000) } else { u64::MAX };
        let (mut reader, mut writer) = tokio::io::split(socket);
        let random_of_writer = Random::new(random.next());
        let told = Arc::clone(&from);
        let is_over = {
            let mut reading = Reading { from, random, go_on, knows_resets, at: 0 };
            let reading = pin!(reading.run(&mut reader, stops_at));
            let writing = pin!(async {
                if write_far(&mut writer, &to, random_of_writer).await.is_err() {
                    told.is_told.store(true, Ordering::SeqCst);
                }
            });
            match select(reading, writing).await {
                Either::Left((is_over, writing)) => {
                    note(told.number, "has read, and writes");
                    if is_over {
                        writing.await;
                    }
                    is_over
                }
                Either::Right(((), reading)) => reading.await,
            }
        };
        if !is_over {
            reset(&reader.unsplit(writer));
        }
        forget(told.number);
        progress(1);
    }
}

/// The reading side of a peer.
struct Reading {
    from: Arc<Direction>,
    random: Random,
    go_on: watch::Receiver<bool>,
    knows_resets: bool,
    at: u64,
}

impl Reading {
    /// Reads to the end, or a reset. Returns `false` if it stops before.
    async fn run(&mut self, reader: &mut (impl AsyncRead + Unpin), stops_at: u64) -> bool {
        let stands_still_at =
            if self.random.one_in(4) { self.random.below(200_000) } else { u64::MAX };
        let is_slow = self.random.one_in(3);
        let mut buffer = vec![0; 1 + self.random.below(30_000) as usize];
        while self.at < stops_at {
            if self.at >= stands_still_at && !*self.go_on.borrow() {
                let _ = self.go_on.changed().await;
            }
            note(self.from.number, format!("reads behind {}", self.at));
            match reader.read(&mut buffer).await {
                Ok(0) => {
                    self.at_the_end();
                    return true;
                }
                Ok(read) => {
                    verify(self.from.number, self.at, &buffer[..read]);
                    self.at += read as u64;
                }
                Err(error) => {
                    let is_reset =
                        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
                    assert!(is_reset, "{error}");
                    let finished = self.from.is_finished.load(Ordering::SeqCst);
                    assert!(!finished || self.at <= self.from.given());
                    return true;
                }
            }
            if is_slow && self.random.one_in(3) && !*self.go_on.borrow() {
                sleep(Duration::from_millis(self.random.below(10))).await;
            }
        }
        false
    }

    /// Fails unless a stream that ended in order is whole, or its connection knows no reset.
    fn at_the_end(&self) {
        let (at, given) = (self.at, self.from.given());
        if self.knows_resets && !self.from.is_told.load(Ordering::SeqCst) {
            assert_eq!(at, given, "stream {} is cut, and nobody is told", self.from.number);
            let was_aborted = self.from.is_reset.load(Ordering::SeqCst);
            assert!(!was_aborted, "stream {} ended in order after an abort", self.from.number);
        }
        assert!(at <= given);
    }
}

async fn write_far(
    writer: &mut (impl AsyncWrite + Unpin),
    to: &Direction,
    mut random: Random,
) -> io::Result<()> {
    let total = random.below(300_000);
    while to.given() < total {
        let bytes = part(to.number, to.given(), 1 + random.below(10_000));
        to.give(writer.write(&bytes).await? as u64);
        if random.one_in(50) {
            sleep(Duration::from_millis(random.below(10))).await;
        }
    }
    if random.one_in(2) {
        to.is_finished.store(true, Ordering::SeqCst);
        writer.shutdown().await?;
    }
    Ok(())
}

/// Tries until it works: the descriptors are few at times.
fn insist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    loop {
        if let Ok(value) = attempt() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a future, or drops it after a time. Without one the watchdog ends what hangs.
async fn within<T>(patience: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match patience {
        Some(patience) => timeout(patience, future).await.ok(),
        None => Some(future.await),
    }
}

/// Waits until every slot is free.
async fn all_free(arena: &FixedArena) {
    while arena.metrics().bytes_live > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// One pool, from its begin to its end, and what belongs to it.
struct Life<'a> {
    arena: FixedArena,
    random: &'a mut Random,
    peers: &'a Runtime,
    numbers: &'a mut u64,
    go_on: watch::Sender<bool>,
    near: Vec<JoinHandle<()>>,
    far: Vec<JoinHandle<()>>,
    kept: Arc<Mutex<Vec<SendHalf>>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// `shutdown`, with everything under way.
    Shutdown,
    /// All handles are dropped, with everything under way.
    Dropped,
    /// The runtime is dropped, with everything under way.
    Runtime,
    /// Nothing is dropped before it has ended by itself.
    Finished,
}

impl Life<'_> {
    fn build(&mut self) -> Option<Pool> {
        let ring = BufferRing::options().entries(1 << self.random.below(5));
        let engine = match std::env::var("URING_ARENA_SOAK_ENGINE").as_deref() {
            Ok("ring") => Engine::Ring,
            Ok("readiness") => Engine::Readiness,
            _ if self.random.one_in(2) => Engine::Ring,
            _ => Engine::Readiness,
        };
        let mut builder = Pool::builder(self.arena.clone())
            .engine(engine)
            .ring(ring)
            .messages_max(1 + self.random.below(20) as usize)
            .send_bytes_max(1 << (6 + self.random.below(16)));
        if self.random.one_in(4) {
            builder = builder.own_thread();
        }
        // Descriptors may be missing.
        builder.build().ok()
    }

    /// Opens a connection. Its tasks run in the pool's runtime and in the peers'.
    fn connect(&mut self, pool: &Pool) {
        *self.numbers += 2;
        let (out, back) = (Direction::new(*self.numbers), Direction::new(*self.numbers + 1));
        let halves = if self.random.one_in(5) {
            let (near, far) = insist(StdUnixStream::pair);
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            self.add_peer(false, &out, &back, move || UnixStream::from_std(far), |_| {});
            UnixStream::from_std(near).and_then(|near| pool.split(near))
        } else {
            let listener = insist(|| TcpListener::bind("127.0.0.1:0"));
            let far = insist(|| StdTcpStream::connect(listener.local_addr().unwrap()));
            let near = insist(|| listener.accept()).0;
            if self.random.one_in(2) {
                let _ = sockopt::set_socket_send_buffer_size(&near, 16_384);
                let _ = sockopt::set_socket_recv_buffer_size(&far, 16_384);
            }
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            let reset = |far: &TcpStream| far.set_zero_linger().unwrap();
            self.add_peer(true, &out, &back, move || TcpStream::from_std(far), reset);
            TcpStream::from_std(near).and_then(|near| pool.split(near))
        };
        // A connection that is refused is closed, and its peer sees that.
        let Ok((incoming, half)) = halves else { return };
        let random = Random::new(self.random.next());
        let sender = NearSender { half, out, arena: self.arena.clone(), random };
        self.near.push(tokio::spawn(sender.run(Arc::clone(&self.kept))));
        let random = Random::new(self.random.next());
        self.near.push(tokio::spawn(read_near(incoming, back, random)));
    }

    fn add_peer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &mut self,
        knows_resets: bool,
        from: &Arc<Direction>,
        to: &Arc<Direction>,
        socket: impl FnOnce() -> io::Result<S> + Send + 'static,
        reset: fn(&S),
    ) {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        let (random, go_on) = (Random::new(self.random.next()), self.go_on.subscribe());
        self.far.push(self.peers.spawn(async move {
            let socket = socket().expect("registering needs no descriptor");
            Peer { socket, from, to, random, go_on, knows_resets, reset }.run().await;
        }));
    }

    /// Lives inside the pool's runtime until the end begins.
    async fn run(&mut self, end: End) {
        let Some(pool) = self.build() else { return sleep(Duration::from_millis(1)).await };
        let ticker = tokio::spawn(async {
            loop {
                sleep(Duration::from_millis(5)).await;
                TICKS.fetch_add(1, Ordering::Relaxed);
            }
        });
        let most = number_from_env("URING_ARENA_SOAK_CONNECTIONS", 20);
        for _ in 0..self.random.below(most) {
            self.connect(&pool);
            // A few hundred are there at once.
            if self.random.one_in(most.div_ceil(5)) {
                sleep(Duration::from_millis(self.random.below(10))).await;
            }
        }
        if end != End::Finished {
            sleep(Duration::from_millis(self.random.below(300))).await;
        }
        let of_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        stage(format!("{end:?} begins, {:?}, of one thread: {of_one_thread}", pool.engine()));
        match end {
            End::Shutdown => {
                let report = pool.shutdown().await.expect("shut down once");
                assert_eq!((report.in_flight, report.quarantined), (0, 0), "{report:?}");
                stage("tasks of a pool that was shut down");
                self.join_near().await;
            }
            End::Dropped => {
                self.near.iter().for_each(JoinHandle::abort);
                self.join_near().await;
                self.kept.lock().unwrap().clear();
                drop(pool);
                stage("a pool without handles");
                self.go_on.send_replace(true);
                all_free(&self.arena).await;
            }
            End::Runtime => {}
            End::Finished => {
                self.go_on.send_replace(true);
                // A half that is kept open keeps its peer.
                let kept = Arc::clone(&self.kept);
                let closing = tokio::spawn(async move {
                    loop {
                        kept.lock().unwrap().clear();
                        sleep(Duration::from_millis(2)).await;
                    }
                });
                self.join_near().await;
                closing.abort();
                pool.shutdown().await.expect("shut down once");
            }
        }
        ticker.abort();
    }

    async fn join_near(&mut self) {
        for task in self.near.drain(..) {
            match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => progress(1),
            }
        }
    }
}

fn live(random: &mut Random, peers: &Runtime, numbers: &mut u64) -> End {
    let arena = paged_arena(4 + random.below(60) as usize, 4096 << random.below(5));
    let runtime = insist(|| match random.one_in(2) {
        true => Builder::new_current_thread().enable_all().build(),
        false => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    });
    let end = [End::Shutdown, End::Dropped, End::Runtime, End::Finished][random.below(4) as usize];
    let (near, far, kept) = (Vec::new(), Vec::new(), Arc::default());
    let (go_on, _) = watch::channel(false);
    let mut life = Life { arena: arena.clone(), random, peers, numbers, go_on, near, far, kept };
    // Tasks that were aborted have left their notes.
    PEERS.lock().unwrap().retain(|&number, _| number < NEAR);
    stage(format!("{end:?} to come"));
    runtime.block_on(life.run(end));
    stage(format!("{end:?}: the runtime ends"));
    drop(runtime);
    life.go_on.send_replace(true);
    life.kept.lock().unwrap().clear();
    stage(format!("{end:?}: peers"));
    peers.block_on(async {
        for task in life.far.drain(..) {
            match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => progress(1),
            }
        }
        stage(format!("{end:?}: slots"));
        all_free(&arena).await;
    });
    assert_all_free(&arena);
    end
}

/// Lowers the limit of descriptors now and then, until it is stopped.
fn lower_limits(mut random: Random, is_over: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut lowered = 0;
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            let before = leave_descriptors(random.below(6) as usize);
            std::thread::sleep(Duration::from_millis(random.below(15)));
            crate::support::limits::set_descriptors(before);
            lowered += 1;
        }
        lowered
    })
}

/// The soak, in a process of its own for its limit of descriptors and its watchdog.
#[test]
fn soak() {
    // The watchdog of the process itself comes first.
    crate::in_own_process("pool::helper_soak", crate::soak_time() + 5 * HANG);
}

#[test]
#[ignore = "lowers the limit of descriptors: run by another test"]
fn helper_soak() {
    if uring_arena::Driver::builder().build().is_err() {
        return eprintln!("SKIPPED: no io_uring here");
    }
    watch_for_hangs();
    let (mut random, until) = settings();
    let peers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let lowering = lower_limits(Random::new(random.next()), Arc::clone(&is_over));
    let (mut numbers, mut ends) = (0, [0; 4]);
    while Instant::now() < until {
        ends[live(&mut random, &peers, &mut numbers) as usize] += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    let lowered = lowering.join().unwrap();
    eprintln!(
        "{} connections; pools shut down, dropped, with their runtime, finished: {ends:?}; {lowered} times few descriptors; {} steps; 0 slots leaked, 0 quarantined",
        numbers / 2,
        PROGRESS.load(Ordering::Relaxed),
    );
}
