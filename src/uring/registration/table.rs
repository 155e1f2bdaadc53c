//! The entries of an arena in a ring's table of registered buffers.

use std::ops::Range;

use crate::region::system_page_bytes;

/// The number of entries that a table can have.
pub(super) const ENTRIES_MAX: usize = 1 << 14;

/// Bytes that one entry can have.
pub(super) const ENTRY_BYTES_MAX: usize = 1 << 30;

/// Bytes of a huge page. The kernel joins only whole ones, which begin on multiples of this.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The entries of one arena in a ring's table. The entries lie side by side in memory, and all but
/// the last have the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BufferTable {
    /// The index of the first entry.
    pub(super) first: u32,
    /// The number of entries.
    pub(super) count: usize,
    /// Bytes of each entry. The last one may have fewer.
    pub(super) entry_bytes: usize,
    /// True if the ring's table has these entries and no others.
    pub(super) is_whole: bool,
}

impl BufferTable {
    /// Returns the index of the entry that holds `len` bytes at `distance` bytes from the arena's
    /// start. Returns `None` if no single entry does.
    #[inline]
    pub(super) fn index_of(&self, distance: usize, len: usize) -> Option<u16> {
        let entry = distance / self.entry_bytes;
        let room = self.entry_bytes - distance % self.entry_bytes;
        if entry >= self.count || len == 0 || len > room {
            return None;
        }
        u16::try_from(self.first as usize + entry).ok()
    }
}

/// Returns the bytes of an entry in the region mode: as many whole slots as fit, in whole huge
/// pages if possible.
pub(super) fn region_bytes(slot_bytes: usize) -> usize {
    let both = least_common_multiple(slot_bytes, HUGE_PAGE_BYTES);
    match both {
        Some(both) if both <= ENTRY_BYTES_MAX => ENTRY_BYTES_MAX / both * both,
        _ => ENTRY_BYTES_MAX / slot_bytes * slot_bytes,
    }
}

fn least_common_multiple(a: usize, b: usize) -> Option<usize> {
    let (mut greater, mut lesser) = (a, b);
    while lesser != 0 {
        (greater, lesser) = (lesser, greater % lesser);
    }
    (a / greater).checked_mul(b)
}

/// Returns the bytes that the kernel locks for entries of `entry_bytes` over `len` bytes at
/// `start`. Each entry locks the pages that it touches.
pub(super) fn locked_bytes(start: usize, len: usize, entry_bytes: usize) -> u64 {
    let page = system_page_bytes() as u64;
    let (start, len, entry) = (start as u64, len as u64, entry_bytes as u64);
    if start.is_multiple_of(page) && entry.is_multiple_of(page) {
        return len.next_multiple_of(page);
    }
    (0..len.div_ceil(entry))
        .map(|index| {
            let (from, to) = (start + index * entry, start + (index * entry + entry).min(len));
            to.next_multiple_of(page) - from / page * page
        })
        .sum()
}

/// A list of the free index ranges of one table, which several arenas share.
///
/// `allocate` is first fit. Arenas come and go rarely and a table has at most 16,384 entries, so a
/// sorted list is enough.
//
// Invariants: 1. `free` is sorted, and its ranges are not empty. 2. Two ranges neither overlap nor
// touch: neighbours are merged when they are freed.
#[derive(Debug)]
pub(crate) struct TableRanges {
    free: Vec<Range<u32>>,
}

impl TableRanges {
    /// Creates the list of a table of `entries` entries, all of them free.
    pub(crate) fn new(entries: u32) -> TableRanges {
        TableRanges { free: (entries > 0).then_some(0..entries).into_iter().collect() }
    }

    /// Allocates `count` entries side by side, as low in the table as they fit.
    ///
    /// Returns the index of the first one, or `None` if no free range is long enough.
    pub(crate) fn allocate(&mut self, count: usize) -> Option<u32> {
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        let fit = self.free.iter().position(|range| range.end - range.start >= count)?;
        let range = &mut self.free[fit];
        let first = range.start;
        range.start += count;
        if range.start == range.end {
            self.free.remove(fit);
        }
        Some(first)
    }

    /// Frees the `count` entries from `first` on, and merges them with the free ranges beside them.
    pub(crate) fn free(&mut self, first: u32, count: usize) {
        let mut freed = first..first + count as u32;
        if count == 0 {
            return;
        }
        let after = self.free.partition_point(|range| range.start < freed.start);
        debug_assert!(after == 0 || self.free[after - 1].end <= freed.start, "freed twice");
        debug_assert!(
            self.free.get(after).is_none_or(|next| freed.end <= next.start),
            "freed twice"
        );
        let mut merged = after..after;
        if after > 0 && self.free[after - 1].end == freed.start {
            merged.start -= 1;
            freed.start = self.free[merged.start].start;
        }
        if let Some(next) = self.free.get(after).filter(|next| next.start == freed.end) {
            freed.end = next.end;
            merged.end += 1;
        }
        self.free.splice(merged, [freed]);
    }

    /// Returns the number of entries in the longest free range.
    pub(crate) fn longest(&self) -> usize {
        self.free.iter().map(|range| range.len()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_that_comes_back_is_given_out_again() {
        let mut ranges = TableRanges::new(1 << 14);
        for _ in 0..1000 {
            let first = ranges.allocate(1024).unwrap();
            assert_eq!(first, 0);
            ranges.free(first, 1024);
        }
        assert_eq!(ranges.longest(), 1 << 14);
    }

    #[test]
    fn neighbours_merge_on_both_sides() {
        let mut ranges = TableRanges::new(10);
        let firsts: Vec<u32> = [3, 4, 3].map(|count| ranges.allocate(count).unwrap()).into();
        assert_eq!((firsts, ranges.longest(), ranges.allocate(1)), (vec![0, 3, 7], 0, None));
        ranges.free(0, 3);
        ranges.free(7, 3);
        assert_eq!((ranges.longest(), ranges.allocate(4)), (3, None));
        ranges.free(3, 4);
        assert_eq!((ranges.longest(), ranges.allocate(10)), (10, Some(0)));
    }

    #[test]
    fn no_entries_are_no_range() {
        assert_eq!(TableRanges::new(0).allocate(1), None);
        let mut ranges = TableRanges::new(4);
        assert_eq!((ranges.allocate(0), ranges.allocate(5)), (None, None));
        ranges.free(2, 0);
        assert_eq!(ranges.longest(), 4);
    }

    proptest! {
        /// Compares with a table of flags: no entry is given out twice, and nothing is lost.
        #[test]
        fn ranges_agree_with_a_table_of_flags(
            steps in prop::collection::vec((1..40usize, any::<bool>(), any::<usize>()), 1..200),
        ) {
            const ENTRIES: usize = 128;
            let mut ranges = TableRanges::new(ENTRIES as u32);
            let (mut taken, mut out) = ([false; ENTRIES], Vec::new());
            for (count, frees, which) in steps {
                if frees && !out.is_empty() {
                    let (first, count): (u32, usize) = out.swap_remove(which % out.len());
                    ranges.free(first, count);
                    taken[first as usize..][..count].fill(false);
                } else {
                    let is_free = |&at: &usize| taken[at..][..count].iter().all(|taken| !taken);
                    let expected = (0..=ENTRIES - count).find(is_free);
                    let first = ranges.allocate(count);
                    prop_assert_eq!(first.map(|first| first as usize), expected);
                    if let Some(first) = first {
                        taken[first as usize..][..count].fill(true);
                        out.push((first, count));
                    }
                }
                let longest = taken.split(|&taken| taken).map(<[bool]>::len).max().unwrap_or(0);
                prop_assert_eq!(ranges.longest(), longest);
            }
        }
    }
}

#[cfg(test)]
mod table_tests {
    use super::*;
    use crate::region::fake_page;

    #[test]
    fn an_index_is_given_only_within_one_entry() {
        let table = BufferTable { first: 10, count: 4, entry_bytes: 100, is_whole: false };
        assert_eq!(table.index_of(0, 100), Some(10));
        assert_eq!(table.index_of(399, 1), Some(13));
        assert_eq!(table.index_of(50, 51), None);
        assert_eq!(table.index_of(400, 1), None);
        assert_eq!(table.index_of(0, 0), None);
    }

    #[test]
    fn regions_hold_whole_slots() {
        for slot_bytes in [64, 4096, 100, 4096 * 3, 65536 + 512, (1 << 30) - 4096] {
            let bytes = region_bytes(slot_bytes);
            assert!(
                bytes > 0 && bytes <= ENTRY_BYTES_MAX && bytes.is_multiple_of(slot_bytes),
                "{slot_bytes}"
            );
        }
        assert_eq!(region_bytes(4096), ENTRY_BYTES_MAX);
        assert!(region_bytes(4096 * 3).is_multiple_of(HUGE_PAGE_BYTES));
    }

    #[test]
    fn entries_that_share_a_page_lock_it_each() {
        for page in [4096, 16384, 65536] {
            fake_page::with(page, || {
                let locks = |start, len, entry| locked_bytes(start, len, entry) as usize / page;
                assert_eq!(locks(0, 2 * page, page), 2);
                assert_eq!(locks(0, 2 * page, page / 2), 4);
                assert_eq!(locks(100, page, page), 2);
                assert_eq!(locks(0, 100, 100), 1);
            });
        }
    }
}
