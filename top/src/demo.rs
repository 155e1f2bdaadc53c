//! A demo server under load: connections on a driver, a cache of blocks, and jobs that wait.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::BufMut;
use uring_arena::{BuddyArena, FixedArena, TrackHolders};
use uring_arena_top::{Latest, Server, Snapshot, serve};

/// The connection whose messages are kept for long.
const SLOW: u64 = 7;

/// The connections.
const CONNECTIONS: u64 = 24;

/// The demo server. Its drop ends it.
pub struct Demo {
    server: Option<Server>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The arenas of the demo.
#[derive(Clone)]
struct Arenas {
    frames: FixedArena,
    cache: BuddyArena,
    jobs: FixedArena,
}

impl Arenas {
    fn add_to(&self, snapshot: Snapshot) -> Snapshot {
        snapshot.arena("cache", &self.cache).arena("jobs", &self.jobs)
    }
}

impl Demo {
    /// Starts the server, and serves its snapshots at `path`, or at a path of its own.
    pub fn start(path: Option<PathBuf>) -> Result<Demo, Box<dyn Error>> {
        let track = TrackHolders::All;
        let arenas = Arenas {
            frames: FixedArena::with_sizes(512, 4096).track_holders(track).build()?,
            cache: BuddyArena::with_sizes(4 << 20, 1024).track_holders(track).build()?,
            jobs: FixedArena::with_sizes(8, 4096).track_holders(track).build()?,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut run = |work: Box<dyn FnOnce(&AtomicBool) + Send>| {
            let is_over = Arc::clone(&is_over);
            threads.push(thread::spawn(move || work(&is_over)));
        };
        let (cache, jobs) = (arenas.cache.clone(), arenas.jobs.clone());
        run(Box::new(move |is_over| keep_blocks(&cache, is_over)));
        for _ in 0..12 {
            let jobs = jobs.clone();
            run(Box::new(move |is_over| wait_for_jobs(&jobs, is_over)));
        }
        let mut senders = Vec::new();
        let mut sockets = VecDeque::new();
        for _ in 0..CONNECTIONS {
            let (sender, socket) = UnixStream::pair()?;
            sender.set_nonblocking(true)?;
            senders.push(sender);
            sockets.push_back(socket);
        }
        let latest = Latest::new();
        let (served, source) = (arenas.clone(), latest.clone());
        run(Box::new(move |is_over| receive(&served, sockets, &latest, is_over)));
        run(Box::new(move |is_over| send(senders, is_over)));
        let path = path.unwrap_or_else(|| {
            let name = format!("uring-arena-top-demo-{}", std::process::id());
            std::env::temp_dir().join(name)
        });
        let mut demo = Demo { server: None, is_over, threads };
        demo.server = Some(serve(path, move || source.take(|| ()))?);
        Ok(demo)
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        self.server.as_ref().expect("it runs").path()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.server = None;
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was told already.
            let _ = thread.join();
        }
    }
}

/// A source of numbers that look drawn at random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn rest(is_over: &AtomicBool, ms: u64) -> bool {
    thread::sleep(Duration::from_millis(ms));
    !is_over.load(Ordering::Relaxed)
}

/// Keeps blocks of many sizes, and drops the oldest.
fn keep_blocks(cache: &BuddyArena, is_over: &AtomicBool) {
    let mut random = Random(0x9E37_79B9);
    let mut kept = VecDeque::new();
    while rest(is_over, 10) {
        let length = 512 << random.below(8);
        match cache.allocate_bytes(length) {
            Ok(mut block) => {
                block.label("cache");
                block.put_bytes(1, length / 2 + random.below(length as u64 / 2) as usize);
                kept.push_back(block.freeze());
            }
            Err(_) => kept.truncate(kept.len() / 2),
        }
        if kept.len() > 150 {
            kept.pop_front();
        }
    }
}

/// Waits for a slot, works on it, and gives it back: twelve do so on eight slots.
fn wait_for_jobs(jobs: &FixedArena, is_over: &AtomicBool) {
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(mut job) = jobs.allocate_timeout(Duration::from_millis(200)) {
            job.label("job");
            rest(is_over, 20 + random.below(60));
        }
    }
}

/// Sends messages on all connections, more at some times than at others.
fn send(mut senders: Vec<UnixStream>, is_over: &AtomicBool) {
    let mut random = Random(0x2545_F491);
    let message = [1; 4096];
    let begin = Instant::now();
    while rest(is_over, 5) {
        let is_busy = begin.elapsed().as_secs() % 20 < 8;
        for _ in 0..if is_busy { 40 } else { 12 } {
            let sender = &mut senders[random.below(CONNECTIONS) as usize];
            // A full socket is no matter: its consumer is slow.
            let _ = sender.write(&message[..64 + random.below(4000) as usize]);
        }
    }
}

/// The messages that are kept until their time comes.
#[derive(Default)]
struct Kept(VecDeque<(Instant, bytes::Bytes)>);

impl Kept {
    fn keep(&mut self, bytes: bytes::Bytes, time: Duration) {
        self.0.push_back((Instant::now() + time, bytes));
    }

    fn drop_due(&mut self) {
        let now = Instant::now();
        self.0.retain(|(due, _)| *due > now);
    }
}

/// Receives on a driver, or without one where io_uring is not to be had.
fn receive(arenas: &Arenas, sockets: VecDeque<UnixStream>, latest: &Latest, is_over: &AtomicBool) {
    #[cfg(target_os = "linux")]
    if let Ok(driver) = uring_arena::Driver::builder().build() {
        if let Err(error) = receive_by_driver(driver, arenas, sockets, latest, is_over) {
            eprintln!("uring-arena-top: the demo's driver: {error}");
        }
        return;
    }
    receive_plainly(arenas, sockets, latest, is_over);
}

#[cfg(target_os = "linux")]
fn receive_by_driver(
    mut driver: uring_arena::Driver,
    arenas: &Arenas,
    sockets: VecDeque<UnixStream>,
    latest: &Latest,
    is_over: &AtomicBool,
) -> Result<(), Box<dyn Error>> {
    use uring_arena::{BufferRing, Event};

    let options = BufferRing::options().entries(64).copy_under_pressure(false);
    let ring = driver.register_buffer_ring(&arenas.frames, options)?;
    for (number, socket) in (1..).zip(sockets) {
        driver.receive_with(ring, socket, number)?;
    }
    let mut kept = Kept::default();
    let mut random = Random(7);
    while !is_over.load(Ordering::Relaxed) {
        driver.wait_timeout(Duration::from_millis(20))?;
        while let Some(event) = driver.next() {
            if let Event::Received { token, bytes, .. } = event {
                let ms = if token == SLOW { 4000 } else { 5 + random.below(60) };
                kept.keep(bytes, Duration::from_millis(ms));
            }
        }
        kept.drop_due();
        if latest.is_wanted() {
            let snapshot = Snapshot::new().arena_of(&driver, "frames", &arenas.frames);
            latest.set(arenas.add_to(snapshot).driver("demo", &driver));
        }
    }
    drop(kept);
    driver.drain(Duration::from_secs(1))?;
    Ok(())
}

/// Receives by plain reads.
fn receive_plainly(
    arenas: &Arenas,
    mut sockets: VecDeque<UnixStream>,
    latest: &Latest,
    is_over: &AtomicBool,
) {
    use std::io::Read;

    let mut kept = Kept::default();
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket"));
    while rest(is_over, 5) {
        for (number, socket) in (1..).zip(&mut sockets) {
            let Ok(mut buffer) = arenas.frames.allocate() else { break };
            let mut bytes = [0; 4096];
            if let Ok(count) = socket.read(&mut bytes) {
                buffer.put_slice(&bytes[..count]);
                let ms = if number == SLOW { 4000 } else { 40 };
                kept.keep(buffer.freeze(), Duration::from_millis(ms));
            }
        }
        kept.drop_due();
        if latest.is_wanted() {
            latest.set(arenas.add_to(Snapshot::new().arena("frames", &arenas.frames)));
        }
    }
}
