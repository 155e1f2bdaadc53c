//! Arrays of words in whole cache lines, and each thread's own place to start.

use super::levels::{CHILDREN, Levels};
use crate::sync::{AtomicU32, AtomicU64, Ordering, thread_index};
use crossbeam_utils::CachePadded;

/// The words below one node: two lines, so that threads that work below different nodes share
/// none, not even through the prefetch of the neighbouring line.
#[repr(align(128))]
struct Line([AtomicU64; CHILDREN]);

pub(super) struct Lines(Box<[Line]>);

impl Lines {
    /// `None` if there is no memory for them.
    pub(super) fn new(len: usize, bits: impl Fn(usize) -> u64) -> Option<Lines> {
        let line = |line: usize| {
            Line(std::array::from_fn(|word| AtomicU64::new(bits(line * CHILDREN + word))))
        };
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
/// Orders that have trails. Larger blocks are few; their words are near the root, and searching
/// there is short.
const ORDERS: usize = 12;
/// Rows for each seat: so many that the trails are a thousandth of the region at most.
const ROWS_PER_SEAT: usize = 256;
/// For each thread and order, the words that served or were freed last. Each seat is on lines of
/// its own, so that a claim in the steady state writes no line that another thread reads.
///
/// Going back to where a block of the same order was freed is what makes a claim cheap when blocks
/// of many sizes come and go, and it reuses a hole of exactly the right size. The memory itself is
/// free for everybody.
pub(super) struct Trails(Box<[CachePadded<[Trail; ORDERS]>]>);

/// The words of the latest frees, the newest first, which no claim has gone back to yet; and the
/// word that served last.
///
/// All Relaxed: a trail only says where to look first. Threads that share a seat may confuse it.
pub(super) struct Trail {
    /// Position of the newest entry.
    newest: AtomicU32,
    served: AtomicU32,
    /// A ring: each a word's number plus one; zero is none.
    freed: [AtomicU32; FREED],
}

/// Frees that a trail remembers; few in a model, which tries every order of every access.
const FREED: usize = if cfg!(uring_arena_loom) { 2 } else { 16 };
/// Set in `served` until something was: words are numbered far below it.
const COLD: u32 = 1 << 31;

impl Trails {
    /// As many seats as there are groups of rows, so that small books stay small; each starts in
    /// a part of the region as far as possible from the seats before it.
    pub(super) fn new(levels: &Levels) -> Trails {
        let seats = (levels.words_at(0) / ROWS_PER_SEAT).clamp(1, SEATS_MAX);
        let seat = |seat: usize| {
            CachePadded::new(std::array::from_fn(|order| {
                let level = levels.level_of((order as u32).min(levels.max_order()));
                Trail::new((levels.words_at(level) * spread(seat, seats) / seats) as u32)
            }))
        };
        Trails((0..seats).map(seat).collect())
    }

    /// This thread's trail for `order`.
    #[inline]
    pub(super) fn of(&self, order: u32) -> Option<&Trail> {
        let seat = thread_index() & (self.0.len() - 1);
        self.0[seat].get(order as usize)
    }

    /// All that any thread remembers of frees: order and word.
    pub(super) fn all_freed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().flat_map(|seat| {
            (0..)
                .zip(seat.iter())
                .flat_map(|(order, trail)| trail.freed().map(move |index| (order, index)))
        })
    }

    /// Bytes that the trails take.
    #[cfg(all(test, not(uring_arena_loom)))]
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<CachePadded<[Trail; ORDERS]>>()
    }
}

/// Reverses the bits of `seat`, so that the first few of `seats` are far apart.
fn spread(seat: usize, seats: usize) -> usize {
    if seats == 1 { 0 } else { seat.reverse_bits() >> (usize::BITS - seats.trailing_zeros()) }
}

impl Trail {
    fn new(first: u32) -> Trail {
        Trail {
            newest: AtomicU32::new(0),
            served: AtomicU32::new(first | COLD),
            freed: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The word that served last, or the one to begin with.
    #[inline]
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed) & !COLD
    }

    /// Whether nothing was claimed on this trail yet.
    pub(super) fn is_cold(&self) -> bool {
        self.served.load(Ordering::Relaxed) & COLD != 0
    }

    #[inline]
    pub(super) fn set_served(&self, index: u32) {
        self.served.store(index, Ordering::Relaxed);
    }

    /// Takes the word of the latest free that no claim has gone back to.
    #[inline]
    pub(super) fn take_freed(&self) -> Option<u32> {
        let newest = self.newest.load(Ordering::Relaxed);
        let entry = &self.freed[newest as usize % FREED];
        let index = entry.load(Ordering::Relaxed).checked_sub(1)?;
        entry.store(0, Ordering::Relaxed);
        self.newest.store(newest.wrapping_sub(1), Ordering::Relaxed);
        Some(index)
    }

    /// Remembers the word of a free; gives back the oldest if that must be forgotten for it.
    #[inline]
    pub(super) fn push_freed(&self, index: u32) -> Option<u32> {
        let newest = self.newest.load(Ordering::Relaxed).wrapping_add(1);
        let entry = &self.freed[newest as usize % FREED];
        let forgotten = entry.load(Ordering::Relaxed);
        entry.store(index + 1, Ordering::Relaxed);
        self.newest.store(newest, Ordering::Relaxed);
        forgotten.checked_sub(1)
    }

    /// The words of frees that no claim has gone back to yet.
    fn freed(&self) -> impl Iterator<Item = u32> + '_ {
        self.freed.iter().filter_map(|entry| entry.load(Ordering::Relaxed).checked_sub(1))
    }
}
