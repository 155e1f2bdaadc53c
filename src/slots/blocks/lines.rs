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

const ORDERS: usize = 32;
const SEATS_MAX: usize = 32;

/// For each thread and order the word that served last. Each seat is on lines of its own, so
/// that a claim in the steady state writes no line that another thread reads.
pub(super) struct Preferences(Box<[CachePadded<[AtomicU32; ORDERS]>]>);

impl Preferences {
    /// As many seats as there are groups of rows, so that small books stay small; each starts in
    /// a part of the region as far as possible from the seats before it.
    pub(super) fn new(levels: &Levels) -> Preferences {
        let seats = (levels.words_at(0) / CHILDREN).clamp(1, SEATS_MAX);
        let bits = seats.trailing_zeros();
        let seat = |seat: usize| {
            let spread = if bits == 0 { 0 } else { seat.reverse_bits() >> (usize::BITS - bits) };
            CachePadded::new(std::array::from_fn(|order| {
                let level = levels.level_of((order as u32).min(levels.max_order()));
                AtomicU32::new((levels.words_at(level) * spread / seats) as u32)
            }))
        };
        Preferences((0..seats).map(seat).collect())
    }

    /// This thread's preferred word for `order`. Only a hint: Relaxed everywhere.
    #[inline]
    pub(super) fn get(&self, order: u32) -> &AtomicU32 {
        let seat = thread_index() & (self.0.len() - 1);
        &self.0[seat][order as usize % ORDERS]
    }

    #[inline]
    pub(super) fn set(&self, order: u32, index: u32) {
        self.get(order).store(index, Ordering::Relaxed);
    }
}
