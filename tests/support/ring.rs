//! Helpers of the tests with pieces on a ring of their own.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::nz;
use io_uring::{IoUring, squeue};
use uring_arena::{
    FixedArena, IoMemory, Operation, Probe, Progress, RegisterOptions, RegisteredArena,
};

/// Builds an arena of page-aligned slots.
pub fn arena(count: usize, bytes: usize) -> FixedArena {
    FixedArena::with_slot_capacity(nz(count), nz(bytes)).alignment(4096).build().unwrap()
}

/// Builds a ring.
///
/// Returns `None`, and prints the reason, where io_uring is not available.
pub fn ring(test: &str) -> Option<IoUring> {
    match Probe::shared() {
        Ok(_) => Some(IoUring::new(64).unwrap()),
        Err(error) => {
            eprintln!("SKIPPED {test}: {error}");
            None
        }
    }
}

pub fn register(
    ring: &IoUring,
    arena: &FixedArena,
    options: impl Into<RegisterOptions<'static>>,
) -> RegisteredArena {
    // SAFETY: the tests push each entry to this ring and hand each completion to its operation,
    // once.
    unsafe { RegisteredArena::register(ring, arena, options) }.unwrap()
}

pub fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: what the entry names is owned by its operation, and the tests keep its descriptor
    // open.
    unsafe { ring.submission().push(entry) }.unwrap();
}

/// The end of an operation.
pub struct Outcome<M> {
    pub result: std::io::Result<usize>,
    pub buffer: M,
    pub copied: Option<bool>,
    /// The number of its completions.
    pub completions: usize,
}

/// Runs one operation on a ring that has nothing else in flight.
pub fn run<M: IoMemory>(
    ring: &mut IoUring,
    (entry, operation): (squeue::Entry, Operation<M>),
) -> Outcome<M> {
    push(ring, &entry);
    let mut operation = operation;
    let mut completions = 0;
    loop {
        ring.submit_and_wait(1).unwrap();
        let cqe = ring.completion().next().unwrap();
        completions += 1;
        // SAFETY: the ring has nothing else in flight, and gives each completion once.
        match unsafe { operation.complete(&cqe) } {
            Progress::Done { result, buffer, copied, .. } => {
                return Outcome { result, buffer, copied, completions };
            }
            Progress::More(more) => operation = more,
        }
    }
}

/// Makes bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A file on the file system of the target folder, removed on drop.
pub struct TestFile {
    pub path: PathBuf,
}

impl TestFile {
    pub fn new(name: &str, content: &[u8]) -> TestFile {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("{name}-{}-{number}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
        TestFile { path }
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
