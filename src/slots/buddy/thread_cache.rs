//! Each thread's own place to start a search: the words in which it freed and claimed last.

use crossbeam_utils::CachePadded;

use super::levels::Levels;
use crate::sync::{AtomicU32, Ordering, thread_index};

/// The largest number of shards. Threads share them if there are more.
const SHARDS_MAX: usize = 64;
/// The number of orders that have caches. Larger blocks are few: their words are near the root, and
/// a search there is short.
const ORDERS: usize = 12;
/// The number of rows for each shard: the caches are a thousandth of the region at most.
const ROWS_PER_SHARD: usize = 256;
/// The number of frees that a cache remembers; few in a model, which tries every order of every
/// access.
const FREED: usize = if cfg!(uring_arena_loom) { 2 } else { 16 };
/// A flag in `last_used` until the cache served a claim: words are numbered far below it.
const UNUSED: u32 = 1 << 31;

/// A cache for each thread and order, of the words that were freed in or claimed in last.
///
/// A claim goes back to where a block of the same order was freed. That is cheap when blocks of
/// many sizes come and go, and it reuses a hole of exactly the right size. The memory itself is
/// free for everybody. Each shard is on lines of its own: a claim in the steady state writes no
/// line that another thread reads.
pub(super) struct ThreadCaches(Box<[CachePadded<[ThreadCache; ORDERS]>]>);

/// The words of the latest frees that no claim has gone back to yet, and the word that was used
/// last.
///
/// All accesses are Relaxed: a cache only says where to look first. Threads that share a shard may
/// confuse it.
pub(super) struct ThreadCache {
    /// The position of the newest entry of `freed`.
    newest: AtomicU32,
    last_used: AtomicU32,
    /// A ring of word numbers, plus one each; zero is an empty entry.
    freed: [AtomicU32; FREED],
}

impl ThreadCaches {
    /// Makes as many shards as there are groups of rows, so that a small tree stays small.
    ///
    /// Each shard starts in a part of the region as far as possible from the shards before it.
    pub(super) fn new(levels: &Levels) -> ThreadCaches {
        let shards = (levels.words_at(0) / ROWS_PER_SHARD).clamp(1, SHARDS_MAX);
        let shard = |shard: usize| {
            CachePadded::new(std::array::from_fn(|order| {
                let level = levels.level_of((order as u32).min(levels.max_order()));
                ThreadCache::new((levels.words_at(level) * spread(shard, shards) / shards) as u32)
            }))
        };
        ThreadCaches((0..shards).map(shard).collect())
    }

    /// Returns the number of the word that the threads of this shard begin with, of `words` words
    /// of a level.
    pub(super) fn home(&self, words: usize) -> u32 {
        let shards = self.0.len();
        (words * spread(thread_index() & (shards - 1), shards) / shards) as u32
    }

    /// Returns the number of shards.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns this thread's cache for `order`, or `None` if the order has no caches.
    #[inline]
    pub(super) fn of(&self, order: u32) -> Option<&ThreadCache> {
        if order as usize >= ORDERS {
            return None;
        }
        let shard = thread_index() & (self.0.len() - 1);
        Some(&self.0[shard][order as usize])
    }

    /// Returns the frees that all threads remember: order and word.
    pub(super) fn all_freed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().flat_map(|shard| {
            (0..)
                .zip(shard.iter())
                .flat_map(|(order, cache)| cache.freed().map(move |index| (order, index)))
        })
    }

    /// Returns the bytes that the caches take.
    #[cfg(all(test, not(uring_arena_loom)))]
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<CachePadded<[ThreadCache; ORDERS]>>()
    }
}

/// Reverses the bits of `shard`, so that the first few of `shards` are far apart.
fn spread(shard: usize, shards: usize) -> usize {
    if shards == 1 { 0 } else { shard.reverse_bits() >> (usize::BITS - shards.trailing_zeros()) }
}

impl ThreadCache {
    fn new(first: u32) -> ThreadCache {
        ThreadCache {
            newest: AtomicU32::new(0),
            last_used: AtomicU32::new(first | UNUSED),
            freed: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Returns the word that served last, or the one to begin with.
    #[inline]
    pub(super) fn last_used(&self) -> u32 {
        self.last_used.load(Ordering::Relaxed) & !UNUSED
    }

    /// Returns `true` if the cache served no claim yet.
    pub(super) fn is_unused(&self) -> bool {
        self.last_used.load(Ordering::Relaxed) & UNUSED != 0
    }

    /// Has the next claim that remembers no free begin with a word, as the first of a thread does.
    pub(super) fn begin_at(&self, index: u32) {
        self.last_used.store(index | UNUSED, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set_last_used(&self, index: u32) {
        self.last_used.store(index, Ordering::Relaxed);
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

    /// Remembers the word of a free. Returns the oldest one if it must be forgotten.
    #[inline]
    pub(super) fn push_freed(&self, index: u32) -> Option<u32> {
        let newest = self.newest.load(Ordering::Relaxed).wrapping_add(1);
        let entry = &self.freed[newest as usize % FREED];
        let forgotten = entry.load(Ordering::Relaxed);
        entry.store(index + 1, Ordering::Relaxed);
        self.newest.store(newest, Ordering::Relaxed);
        forgotten.checked_sub(1)
    }

    /// Returns the words of the frees that no claim has gone back to yet.
    fn freed(&self) -> impl Iterator<Item = u32> + '_ {
        self.freed.iter().filter_map(|entry| entry.load(Ordering::Relaxed).checked_sub(1))
    }
}
