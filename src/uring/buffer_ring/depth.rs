//! The depth of a ring: how many slots lie ready, and how many of them one receive may fill.
//!
//! The slots that lie ready are filled by one entry of the kernel, so they should fit the cache
//! that the program reads them from. Bulk data gets few entries of many bytes, and small messages
//! get many of one slot each.

use std::fs;
use std::sync::OnceLock;

/// The most bytes of one entry: a larger message costs the kernel and the program no less a byte.
const ENTRY_BYTES_MAX: u32 = 64 << 10;

/// The entries that are learnt from together: one or two say little.
const ENTRIES_LEARNT: u32 = 8;

/// The least number of entries that lie ready.
const ENTRIES_MIN: u32 = 4;

/// The bytes that arming a receive again is worth: below them, more lies ready than the target.
const REARM_BYTES: u32 = 16 << 10;

/// The factor by which entries grow that messages fill.
const GROWTH: u32 = 16;

/// The times of learning after which longer entries are tried again that were of no use: the first
/// time, and at most.
const PATIENCE_MIN: u32 = 8;
const PATIENCE_MAX: u32 = 1024;

/// The depth of one ring. It follows the messages by a moving average.
pub(super) struct Depth {
    /// The bytes that came since `head` was the position of the oldest entry.
    pub(super) bytes: u64,
    head: u32,
    /// The bytes that an entry brings.
    average: u32,
    /// No entry has brought any yet.
    is_new: bool,
    /// The bytes that are to lie ready.
    target: u32,
    /// The slots of an entry now, and at most: powers of two.
    run: u32,
    run_max: u32,
    /// The position from which on entries have `run` slots, while older ones lie ready.
    changes_at: Option<u32>,
    /// The times of learning for which entries do not grow, and those after the next time that it
    /// is of no use.
    patience: u32,
    next_patience: u32,
    /// The number of slots that are to lie ready now.
    pub(super) slots: u32,
}

impl Depth {
    /// Creates the depth of a ring of slots of `slot_bytes`. `target` is in bytes; by default it is
    /// half of the second-level cache.
    pub(super) fn new(target: Option<usize>, slot_bytes: u32, slot_count: usize) -> Depth {
        let target = target.unwrap_or_else(half_l2_cache);
        Depth {
            bytes: 0,
            head: 0,
            // Bulk, until something else comes: its first bytes run into no cold slots.
            average: slot_bytes,
            is_new: true,
            target: u32::try_from(target).unwrap_or(u32::MAX),
            run: 1,
            run_max: run_max(slot_bytes, slot_count),
            changes_at: None,
            patience: 0,
            next_patience: PATIENCE_MIN,
            slots: 0,
        }
    }

    /// Allows only entries of one slot: for messages that must not be longer than a slot, and for
    /// slots that several messages share.
    pub(super) fn forbid_runs(&mut self) {
        (self.run, self.run_max) = (1, 1);
    }

    /// Returns the most slots of one piece.
    pub(super) fn run_max(&self) -> u32 {
        self.run_max
    }

    /// Returns the number of slots of an entry.
    #[inline]
    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// Sets the number of slots of an entry.
    #[cfg(test)]
    pub(super) fn set_run(&mut self, run: u32) {
        self.run = run;
    }

    /// Counts positions from 0 again, as a ring does that is registered again.
    pub(super) fn restart(&mut self) {
        (self.bytes, self.head, self.changes_at) = (0, 0, None);
    }

    /// Adapts to what came until the oldest entry was at `head`, and the next one is posted at
    /// `tail`. At most `limit` slots lie ready.
    pub(super) fn adapt(&mut self, (head, tail): (u32, u32), slot_bytes: u32, limit: u32) {
        let entries = head.wrapping_sub(self.head);
        if entries >= ENTRIES_LEARNT {
            let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
            let first = std::mem::replace(&mut self.head, head);
            self.bytes = 0;
            match self.changes_at {
                // Entries of the old length say nothing of the new one.
                Some(at) if (first.wrapping_sub(at) as i32) < 0 => {}
                _ => self.learn(bytes / entries, tail, slot_bytes, limit),
            }
        }
        self.slots = self.slots_for(limit);
    }

    /// Takes in the bytes that each of the last entries brought. The next one is posted at `tail`.
    fn learn(&mut self, now: u32, tail: u32, slot_bytes: u32, limit: u32) {
        let is_first = std::mem::take(&mut self.is_new) | self.changes_at.take().is_some();
        self.average = match is_first {
            true => now,
            false => (3 * u64::from(self.average) + u64::from(now)).div_ceil(4) as u32,
        };
        self.patience = self.patience.saturating_sub(1);
        let (average, entry) = (u64::from(self.average), u64::from(self.run * slot_bytes));
        // A few slots are better a few entries than one.
        let run_max = self.run_max.min(prev_power_of_two(limit / ENTRIES_MIN));
        if average * 4 > entry * 3 && self.run < run_max && self.patience == 0 {
            let run = run_max.min(GROWTH * self.run);
            self.average = self.average.saturating_mul(run / self.run);
            (self.run, self.changes_at) = (run, Some(tail));
        } else if average * 4 <= entry && self.run > 1 {
            let slots = self.average.div_ceil(slot_bytes).max(1).next_power_of_two();
            (self.run, self.changes_at) = (slots, Some(tail));
            self.patience = self.next_patience;
            self.next_patience = PATIENCE_MAX.min(2 * self.next_patience);
        }
    }

    fn slots_for(&self, limit: u32) -> u32 {
        let average = self.average.max(1);
        // Small messages may go beyond the cache: a receive that finds no slot costs more than
        // that.
        let beyond = if self.is_new { 1 } else { u64::from(REARM_BYTES / average).clamp(1, 4) };
        let target = u64::from(self.target) * beyond;
        let entries = (target / u64::from(average)).max(ENTRIES_MIN.into());
        entries.saturating_mul(self.run.into()).min(limit.into()) as u32
    }
}

/// Returns the most slots of an entry: a power of two, 32 at most, because a word has as many. And
/// a sixteenth of the arena, so that a few pieces that are held do not hold all of it.
fn run_max(slot_bytes: u32, slot_count: usize) -> u32 {
    let share = u32::try_from(slot_count / 16).unwrap_or(u32::MAX);
    prev_power_of_two((ENTRY_BYTES_MAX / slot_bytes).min(share).min(32))
}

/// Returns the largest power of two that is not more than `count`, and 1 for none.
fn prev_power_of_two(count: u32) -> u32 {
    1 << count.max(1).ilog2()
}

/// The bytes that are taken for half of the second-level cache where sysfs does not tell.
const HALF_L2_DEFAULT: usize = 256 << 10;

/// Returns the bytes of half the second-level cache of a processor. Read once in a process.
fn half_l2_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| l2_cache().map_or(HALF_L2_DEFAULT, |bytes| bytes / 2))
}

/// Reads the size of the second-level cache of the first processor.
fn l2_cache() -> Option<usize> {
    (0..8).find_map(|index| {
        let read = |name| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}"))
        };
        let is_l2 = read("level").ok()?.trim() == "2";
        is_l2.then(|| parse(&read("size").ok()?))?
    })
}

/// Reads a size as sysfs writes it: `1024K`.
fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1 << 10;

    fn depth(slot_bytes: u32) -> Depth {
        Depth::new(Some(512 << 10), slot_bytes, 4096)
    }

    /// A ring in which each entry that is taken is posted again, `ready` of them.
    struct Ring {
        depth: Depth,
        slot_bytes: u32,
        ready: std::collections::VecDeque<u32>,
        head: u32,
    }

    impl Ring {
        fn new(slot_bytes: u32) -> Ring {
            let ready = [1; 16].into();
            Ring { depth: depth(slot_bytes), slot_bytes, ready, head: u32::MAX - 100 }
        }

        /// Has `count` entries bring the bytes that `of_entry` says, and adapts after each.
        fn play(&mut self, count: u32, of_entry: impl Fn(u32) -> u32) {
            for _ in 0..count {
                let entry = self.ready.pop_front().unwrap() * self.slot_bytes;
                self.depth.bytes += u64::from(of_entry(entry));
                self.head = self.head.wrapping_add(1);
                let tail = self.head.wrapping_add(self.ready.len() as u32);
                self.depth.adapt((self.head, tail), self.slot_bytes, 1024);
                self.ready.push_back(self.depth.run());
            }
        }
    }

    #[test]
    fn bulk_gets_few_long_entries_and_small_messages_many_short_ones() {
        for (slot, run, slots) in [(4 * KIB, 16, 128), (64 * KIB, 1, 8), (1024 * KIB, 1, 4)] {
            let mut ring = Ring::new(slot);
            ring.play(200, |entry| entry);
            assert_eq!((ring.depth.run(), ring.depth.slots), (run, slots), "slots of {slot}");
            ring.play(400, |_| 512);
            assert_eq!((ring.depth.run(), ring.depth.slots), (1, 1024), "slots of {slot}");
            ring.play(2000, |entry| entry);
            assert_eq!((ring.depth.run(), ring.depth.slots), (run, slots), "slots of {slot}");
        }
    }

    #[test]
    fn entries_that_are_longer_than_the_messages_are_seldom_tried() {
        let mut ring = Ring::new(4 * KIB);
        ring.play(20_000, |entry| entry.min(4 * KIB));
        let mut long = 0;
        for _ in 0..10_000 {
            ring.play(1, |entry| entry.min(4 * KIB));
            long += u32::from(ring.depth.run() > 1);
        }
        assert!(long < 500, "{long}");
    }

    #[test]
    fn a_few_slots_are_a_few_entries() {
        for limit in 1..40 {
            let mut depth = depth(4 * KIB);
            for head in 1..500 {
                depth.bytes += u64::from(depth.run() * 4 * KIB);
                depth.adapt((head, head), 4 * KIB, limit);
            }
            assert!(depth.run() == 1 || depth.run() * 4 <= limit, "{limit}");
            assert!(depth.slots <= limit && depth.slots >= limit.min(4), "{limit}");
        }
    }

    #[test]
    fn nothing_overflows_and_nothing_is_empty() {
        for slot in [1, 3, 64, 100_000, i32::MAX as u32] {
            let mut depth = depth(slot);
            depth.head = u32::MAX;
            depth.adapt((u32::MAX, 0), slot, 1);
            assert_eq!(depth.slots, 1);
            for head in 0..50 {
                depth.bytes = u64::MAX;
                depth.adapt((head, head + 1), slot, 1);
                assert_eq!((depth.slots, depth.run()), (1, 1));
            }
        }
        for target in [0, usize::MAX] {
            let mut depth = Depth::new(Some(target), 4096, 4096);
            for head in 1..200 {
                depth.bytes += u64::from(depth.run() * 4096);
                depth.adapt((head, head), 4096, 1024);
            }
            assert!((4..=1024).contains(&depth.slots), "{}", depth.slots);
        }
    }

    #[test]
    fn sizes_are_read_as_sysfs_writes_them() {
        assert_eq!(parse("1024K\n"), Some(1 << 20));
        assert_eq!((parse("2M"), parse("512")), (Some(2 << 20), Some(512)));
        for wrong in ["", "K", "x", "0K", "99999999999999999999M"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(half_l2_cache() > 0);
    }
}
