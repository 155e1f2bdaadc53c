//! What is read: sizes, depths, and the next place; and what it cost.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use crate::harness::Effort;

/// What transparent huge pages come in.
pub const HUGE_PAGE: usize = 2 << 20;

/// One row of tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub random: bool,
    pub block_bytes: usize,
    pub depth: usize,
}

impl Load {
    pub fn all() -> Vec<Self> {
        let load = |random, block_bytes, depth| Self { random, block_bytes, depth };
        let random = [1, 32, 128].map(|depth| load(true, 4096, depth));
        let sequential = [1, 32, 128].map(|depth| load(false, 131_072, depth));
        [random, sequential].concat()
    }

    /// What a run goes through.
    pub fn measured_with(effort: Effort) -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|load| load.random || load.depth == 32 || !effort.quick)
            .collect()
    }

    /// As many as are in flight, and never less than a huge page in all.
    pub fn buffers(self) -> usize {
        self.depth.max(HUGE_PAGE / self.block_bytes)
    }

    pub fn key(self) -> String {
        format!("{}-{}", if self.random { "random" } else { "sequential" }, self.depth)
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::all().into_iter().find(|load| load.key() == key)
    }

    pub fn title(self) -> String {
        let kilobytes = self.block_bytes / 1024;
        let pattern = if self.random { "Random" } else { "Sequential" };
        format!("{pattern} {kilobytes} KiB, depth {}", self.depth)
    }
}

/// Gives out places in the file: scattered evenly, or one after the other and again from the start.
pub struct Places {
    blocks: u64,
    block_bytes: u64,
    random: bool,
    state: Cell<u64>,
    left: Cell<u64>,
}

impl Places {
    pub fn new(file_bytes: u64, load: Load) -> Self {
        let block_bytes = load.block_bytes as u64;
        let blocks = file_bytes / block_bytes;
        let state = if load.random { 0x9E37_79B9_7F4A_7C15 } else { 0 };
        Self {
            blocks,
            block_bytes,
            random: load.random,
            state: Cell::new(state),
            left: Cell::new(0),
        }
    }

    /// So many more may be taken.
    pub fn allow(&self, reads: u64) {
        self.left.set(reads);
    }

    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.left.set(self.left.get().checked_sub(1)?);
        let mut state = self.state.get();
        if self.random {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        } else {
            state += 1;
        }
        self.state.set(state);
        Some(state % self.blocks * self.block_bytes)
    }
}

/// User and system time of the whole process at some moment.
pub struct Processor(Duration);

impl Processor {
    pub fn now() -> Self {
        // SAFETY: integers only: all zeros is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value of the right type.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
        let time = |value: libc::timeval| {
            Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
        };
        Self(time(usage.ru_utime) + time(usage.ru_stime))
    }

    pub fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// How much of this process's memory lies on huge pages.
pub fn huge_mebibytes() -> f64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}
