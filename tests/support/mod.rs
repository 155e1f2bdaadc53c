//! Helpers that the test binaries share.
#![allow(dead_code, reason = "each test binary uses its part")]

#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod driver;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod examples;
#[cfg(target_os = "linux")]
pub mod fork;
#[cfg(target_os = "linux")]
pub mod fuse;
#[cfg(target_os = "linux")]
pub mod limits;
pub mod log;
#[cfg(target_os = "linux")]
pub mod mount;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod ring;
pub mod runtimes;
#[cfg(target_os = "linux")]
pub mod seccomp;
#[cfg(target_os = "linux")]
pub mod signals;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod zero;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use bytes::BufMut;
use uring_arena::{BuddyArena, BuddyGeometry, Buffer, FixedArena, SlotStates};

/// A time longer than a test takes: a hang becomes a failure that tells where it waited.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs `body` on a thread of its own.
///
/// Panics as `body` does, and after three times [`TIMEOUT`] without its end: a call that hangs is a
/// failure, not a test that never ends.
pub fn watched<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(body());
    });
    match end.recv_timeout(3 * TIMEOUT) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().expect_err("it sends or panics")),
    }
}

/// Reads a number from the environment: how often, or for how long, a test shall go on.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Durations without an end, and some that are too long to be added to a time.
pub const ENDLESS: [Duration; 7] = [
    Duration::MAX,
    Duration::from_secs(u64::MAX),
    Duration::from_secs(i64::MAX as u64),
    Duration::from_secs(i64::MAX as u64 / 2),
    Duration::from_nanos(u64::MAX),
    Duration::from_nanos(i64::MAX as u64),
    Duration::from_secs(1 << 32),
];

pub fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// Builds a fixed arena.
pub fn arena(slots: usize, slot_bytes: usize) -> FixedArena {
    FixedArena::new(slots, slot_bytes).unwrap()
}

/// Builds a fixed arena of page-aligned slots, which `O_DIRECT` may use.
pub fn paged_arena(slots: usize, slot_bytes: usize) -> FixedArena {
    FixedArena::with_slot_capacity(nz(slots), nz(slot_bytes)).alignment(4096).build().unwrap()
}

/// Builds a buddy arena of page-aligned blocks, 4 KiB the smallest.
pub fn paged_buddy_arena(total: usize) -> BuddyArena {
    let geometry = BuddyGeometry::exact(nz(total), nz(4096)).unwrap();
    BuddyArena::builder(geometry.with_alignment(nz(4096)).unwrap()).build().unwrap()
}

/// Appends `bytes` to a buffer.
pub fn written(mut buffer: Buffer, bytes: &[u8]) -> Buffer {
    buffer.put_slice(bytes);
    buffer
}

/// Claims a buffer and writes `bytes` to it.
pub fn filled(arena: &FixedArena, bytes: &[u8]) -> Buffer {
    written(arena.allocate().unwrap(), bytes)
}

/// Makes bytes that differ by position and by seed.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed as u64);
    (0..len).map(|_| random.next() as u8).collect()
}

/// A source of random numbers: the same ones for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed.wrapping_add(1)) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Gives a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A waker that counts its wakes.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that panics.
pub struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of somebody else's");
    }
}

/// Opens a TCP connection over loopback, and returns both ends.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Opens a TCP connection whose far end has little room, answers window probes, and never reads.
#[cfg(target_os = "linux")]
pub fn stuck_pair() -> (TcpStream, TcpStream) {
    use rustix::net::sockopt;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // Room enough that the socket takes whole sends, which then wait for the far end.
    sockopt::set_socket_send_buffer_size(&near, 1 << 22).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Opens a Unix connection that keeps the boundaries of messages (`SOCK_SEQPACKET`).
#[cfg(target_os = "linux")]
pub fn message_pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    socketpair(AddressFamily::UNIX, kind, flags, None).unwrap()
}

pub fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

/// A path on the file system of the target folder, used once; its file is removed on drop.
pub struct TestFile(PathBuf);

impl TestFile {
    /// Picks a path, and makes no file.
    pub fn path(name: &str) -> TestFile {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        TestFile(folder.join(format!("{name}-{}-{number}", std::process::id())))
    }

    /// Makes a file with `content` on the disk.
    pub fn new(name: &str, content: &[u8]) -> TestFile {
        let path = TestFile::path(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
        path
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(self).unwrap()
    }
}

impl AsRef<Path> for TestFile {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The counts that prove an arena whole again, whatever its allocator.
#[derive(Debug)]
pub struct Counts {
    claims: u64,
    frees: u64,
    bytes_live: usize,
    quarantined: u64,
    states: SlotStates,
    slots: usize,
}

/// An arena whose slots can be counted.
pub trait Countable {
    fn counts(&self) -> Counts;

    /// Claims every byte at once and frees it again.
    ///
    /// Returns `false` if some of the memory was refused.
    fn can_claim_all(&self) -> bool;
}

impl Countable for FixedArena {
    fn counts(&self) -> Counts {
        let metrics = self.metrics();
        Counts {
            claims: metrics.allocations_ok,
            frees: metrics.frees,
            bytes_live: metrics.bytes_live,
            quarantined: metrics.quarantined,
            states: self.slot_states(),
            slots: self.slot_count(),
        }
    }

    fn can_claim_all(&self) -> bool {
        let mut all = Vec::new();
        self.allocate_many(self.slot_count(), |buffer| all.push(buffer)) == self.slot_count()
    }
}

impl Countable for BuddyArena {
    fn counts(&self) -> Counts {
        let metrics = self.metrics();
        Counts {
            claims: metrics.allocations_ok,
            frees: metrics.frees,
            bytes_live: metrics.bytes_live,
            quarantined: metrics.quarantined,
            states: self.slot_states(),
            slots: self.total_size() / self.min_block_size(),
        }
    }

    fn can_claim_all(&self) -> bool {
        self.metrics().largest_free_block == self.total_size()
            && self.allocate(nz(self.total_size())).is_ok()
    }
}

#[cfg(feature = "async-alloc")]
impl<W: uring_arena::Waiter> Countable for uring_arena::AsyncFixedArena<W> {
    fn counts(&self) -> Counts {
        FixedArena::counts(self)
    }

    fn can_claim_all(&self) -> bool {
        FixedArena::can_claim_all(self)
    }
}

#[cfg(feature = "async-alloc")]
impl<W: uring_arena::BuddyWaiter> Countable for uring_arena::AsyncBuddyArena<W> {
    fn counts(&self) -> Counts {
        BuddyArena::counts(self)
    }

    fn can_claim_all(&self) -> bool {
        BuddyArena::can_claim_all(self)
    }
}

/// Fails unless every slot is free: by the counters, by the states, and by claiming all of them.
#[track_caller]
pub fn assert_all_free(arena: &impl Countable) {
    let counts = arena.counts();
    assert_eq!(counts.claims, counts.frees, "{counts:?}");
    assert_eq!((counts.bytes_live, counts.quarantined), (0, 0), "{counts:?}");
    let all = (counts.slots, counts.slots);
    assert_eq!((counts.states.free, counts.states.total()), all, "{counts:?}");
    assert!(arena.can_claim_all(), "free by the counts, and yet not to be claimed: {counts:?}");
}
