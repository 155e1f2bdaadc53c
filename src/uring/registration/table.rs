//! The entries of an arena in a ring's table of registered buffers.

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
    const PAGE: u64 = 4096;
    let (start, len, entry) = (start as u64, len as u64, entry_bytes as u64);
    if start.is_multiple_of(PAGE) && entry.is_multiple_of(PAGE) {
        return len.next_multiple_of(PAGE);
    }
    (0..len.div_ceil(entry))
        .map(|index| {
            let (from, to) = (start + index * entry, start + (index * entry + entry).min(len));
            to.next_multiple_of(PAGE) - from / PAGE * PAGE
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(locked_bytes(0, 8192, 4096), 8192);
        assert_eq!(locked_bytes(0, 8192, 2048), 4 * 4096);
        assert_eq!(locked_bytes(100, 4096, 4096), 8192);
    }
}
