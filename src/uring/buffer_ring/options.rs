//! How a buffer ring shall be.

use super::RingError;

/// Entries that a ring has at most: a limit of the kernel.
const ENTRIES_MAX: usize = 1 << 15;

/// Slots that an arena behind a buffer ring has at most: a buffer id has 16 bits.
pub(super) const SLOTS_MAX: usize = 1 << 16;

/// Entries of a ring that nobody gave a number for, if the arena has as many slots.
const ENTRIES_DEFAULT: usize = 1024;

/// How a [`BufferRing`](crate::BufferRing) shall be.
///
/// ```
/// use uring_arena::BufferRing;
///
/// let options = BufferRing::options().entries(1024).group(7).copy_below(256);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "options do nothing until a ring is made with them"]
pub struct BufferRingOptions {
    entries: Option<usize>,
    group: Option<u16>,
    copy_below: usize,
    incremental: bool,
    bundles: bool,
}

impl BufferRingOptions {
    /// Slots that lie ready for the kernel at most: a power of two up to 32,768. Independent of the
    /// number of slots in the arena: what users hold does not count. Default: 1024, or as many as
    /// the arena has slots.
    pub fn entries(mut self, entries: usize) -> BufferRingOptions {
        self.entries = Some(entries);
        self
    }

    /// The buffer group id that receives name the ring by. Default: the driver's first free one; 0
    /// for a ring of your own.
    pub fn group(mut self, group: u16) -> BufferRingOptions {
        self.group = Some(group);
        self
    }

    /// Copies messages shorter than `bytes` to the heap and gives their slot back to the kernel at
    /// once, so that 20 bytes do not hold a slot of 64 KiB. Default: 0, never.
    pub fn copy_below(mut self, bytes: usize) -> BufferRingOptions {
        self.copy_below = bytes;
        self
    }

    /// Lets one slot take several messages, each behind the one before (`IOU_PBUF_RING_INC`, Linux
    /// 6.12; an older kernel gives each message a slot of its own).
    ///
    /// Each message owns only its own range, but **a slot is free again only when every message in
    /// it is dropped**. For streams: the kernel's datagram receive does not work well with it.
    pub fn incremental(mut self, incremental: bool) -> BufferRingOptions {
        self.incremental = incremental;
        self
    }

    /// Lets one completion fill several slots (`IORING_RECVSEND_BUNDLE`, Linux 6.10; an older
    /// kernel fills one): fewer turns of the network stack for large messages.
    pub fn bundles(mut self, bundles: bool) -> BufferRingOptions {
        self.bundles = bundles;
        self
    }

    pub(crate) fn wants_incremental(&self) -> bool {
        self.incremental
    }

    pub(crate) fn wants_bundles(&self) -> bool {
        self.bundles
    }

    pub(super) fn copy_below_bytes(&self) -> usize {
        self.copy_below
    }

    pub(crate) fn group_id(&self) -> Option<u16> {
        self.group
    }

    /// The number of entries, if the kernel takes it.
    pub(super) fn entries_for(&self, slot_count: usize) -> Result<u16, RingError> {
        if slot_count > SLOTS_MAX {
            return Err(RingError::TooManySlots { slots: slot_count, limit: SLOTS_MAX });
        }
        match self.entries {
            None => Ok(prev_power_of_two(slot_count.min(ENTRIES_DEFAULT)) as u16),
            Some(entries) if entries.is_power_of_two() && entries <= ENTRIES_MAX => {
                Ok(entries as u16)
            }
            Some(entries) => Err(RingError::Entries { entries, limit: ENTRIES_MAX }),
        }
    }
}

fn prev_power_of_two(count: usize) -> usize {
    debug_assert!(count > 0);
    1 << count.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_must_be_a_power_of_two_that_the_kernel_takes() {
        let entries = |entries| BufferRingOptions::default().entries(entries).entries_for(8);
        assert_eq!(entries(1), Ok(1));
        assert_eq!(entries(1 << 15), Ok(1 << 15));
        for wrong in [0, 3, 1 << 16] {
            assert_eq!(entries(wrong), Err(RingError::Entries { entries: wrong, limit: 1 << 15 }));
        }
    }

    #[test]
    fn entries_default_to_what_the_arena_can_fill() {
        let default = |slots| BufferRingOptions::default().entries_for(slots);
        assert_eq!(default(1), Ok(1));
        assert_eq!(default(100), Ok(64));
        assert_eq!(default(1 << 16), Ok(1024));
        assert_eq!(
            default((1 << 16) + 1),
            Err(RingError::TooManySlots { slots: 65537, limit: 65536 })
        );
    }
}
