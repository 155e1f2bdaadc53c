//! Helpers of the tests with pieces on a ring of their own.
#![allow(unsafe_code)]

use io_uring::{IoUring, squeue};
use uring_arena::{
    IoMemory, Operation, Probe, Progress, RegisterOptions, RegisteredArena, Registrable,
};

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
    arena: &impl Registrable,
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
