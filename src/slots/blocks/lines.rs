//! Arrays of words in whole cache lines, and each thread's own place to start.

use super::levels::{CHILDREN, Levels, ORDER_MAX};
use crate::sync::{AtomicU64, Ordering, thread_index};
use crossbeam_utils::CachePadded;

/// The words below one node: two lines, so that threads that work below different nodes share
/// none, not even through the prefetch of the neighbouring line.
#[repr(align(128))]
struct Line([AtomicU64; CHILDREN]);

pub(super) struct Lines(Box<[Line]>);

impl Lines {
    /// `None` if there is no memory for them.
    pub(super) fn new(len: usize, bits: impl Fn(usize) -> u64) -> Option<Lines> {
        let line =
            |line: usize| Line(std::array::from_fn(|word| AtomicU64::new(bits(line * CHILDREN + word))));
        let count = len.div_ceil(CHILDREN);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        lines.extend((0..count).map(line));
        Some(Lines(lines.into_boxed_slice()))
    }

    #[inline]
    pub(super) fn get(&self, position: usize) -> &AtomicU64 {
        &self.0[position / CHILDREN].0[position % CHILDREN]
    }
}

const SEATS_MAX: usize = 32;
const ORDERS: usize = ORDER_MAX as usize + 1;
/// For each thread and order, the words that served or were freed last. Each seat is on lines of its
/// own, so that a claim in the steady state writes no line that another thread reads.
///
/// Going back to where a block of the same order was freed is what makes a claim cheap when blocks of many
/// sizes come and go, and it reuses a hole of exactly the right size. The memory itself is free for everybody.
pub(super) struct Trails(Box<[CachePadded<[Trail; ORDERS]>]>);

/// Four words, the newest lowest, each as its number plus one; zero is none.
///
/// All Relaxed: a trail only says where to look first. Threads that share a seat may confuse it.
pub(super) struct Trail {
    newer: AtomicU64,
    older: AtomicU64,
}

impl Trails {
    /// As many seats as there are groups of rows, so that small books stay small; each starts in
    /// a part of the region as far as possible from the seats before it.
    pub(super) fn new(levels: &Levels) -> Trails {
        let seats = (levels.words_at(0) / (4 * CHILDREN)).clamp(1, SEATS_MAX);
        let seat = |seat: usize| {
            CachePadded::new(std::array::from_fn(|order| {
                let level = levels.level_of((order as u32).min(levels.max_order()));
                Trail::new((levels.words_at(level) * spread(seat, seats) / seats) as u32)
            }))
        };
        Trails((0..seats).map(seat).collect())
    }

    /// The word of `words` at which this thread begins when its trail is cold.
    pub(super) fn home(&self, words: usize) -> u32 {
        let seats = self.0.len();
        (words * spread(thread_index() & (seats - 1), seats) / seats) as u32
    }

    /// This thread's trail for `order`.
    #[inline]
    pub(super) fn of(&self, order: u32) -> &Trail {
        let seat = thread_index() & (self.0.len() - 1);
        &self.0[seat][order as usize % ORDERS]
    }
}

/// Reverses the bits of `seat`, so that the first few of `seats` are far apart.
fn spread(seat: usize, seats: usize) -> usize {
    if seats == 1 { 0 } else { seat.reverse_bits() >> (usize::BITS - seats.trailing_zeros()) }
}

impl Trail {
    fn new(first: u32) -> Trail {
        Trail { newer: AtomicU64::new(u64::from(first) + 1), older: AtomicU64::new(0) }
    }

    /// The newest word.
    #[inline]
    pub(super) fn newest(&self) -> Option<u32> {
        (self.newer.load(Ordering::Relaxed) as u32).checked_sub(1)
    }

    /// Forgets the newest word, which did not serve, and gives the one before it.
    #[inline]
    pub(super) fn step_back(&self) -> Option<u32> {
        let (newer, older) = (self.newer.load(Ordering::Relaxed), self.older.load(Ordering::Relaxed));
        self.newer.store((newer >> 32) | (older << 32), Ordering::Relaxed);
        self.older.store(older >> 32, Ordering::Relaxed);
        ((newer >> 32) as u32).checked_sub(1)
    }

    /// Remembers a word as the newest.
    #[inline]
    pub(super) fn remember(&self, index: u32) {
        let newer = self.newer.load(Ordering::Relaxed);
        if newer as u32 == index + 1 {
            return;
        }
        let older = self.older.load(Ordering::Relaxed);
        self.older.store((older << 32) | (newer >> 32), Ordering::Relaxed);
        self.newer.store((newer << 32) | u64::from(index + 1), Ordering::Relaxed);
    }
}
