//! Free index ranges of a ring's table of registered buffers.

use std::ops::Range;

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
        fn ranges_agree_with_a_table_of_flags(steps in prop::collection::vec((1..40usize, any::<bool>(), any::<usize>()), 1..200)) {
            const ENTRIES: usize = 128;
            let mut ranges = TableRanges::new(ENTRIES as u32);
            let (mut taken, mut out) = ([false; ENTRIES], Vec::new());
            for (count, frees, which) in steps {
                if frees && !out.is_empty() {
                    let (first, count): (u32, usize) = out.swap_remove(which % out.len());
                    ranges.free(first, count);
                    taken[first as usize..][..count].fill(false);
                } else {
                    let expected = (0..=ENTRIES - count).find(|&at| taken[at..][..count].iter().all(|taken| !taken));
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
