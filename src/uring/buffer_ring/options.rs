//! The options of a buffer ring.

use crate::lease::Place;
use std::io;

use super::depth::Depth;
use super::pressure::Pressure;
use crate::arena::FixedArena;
use crate::lease::Handle;
use crate::uring::kernel::{Memlock, who_forbids};

/// The kernel's limit on the entries of a ring.
const ENTRIES_MAX: usize = 1 << 15;

/// The number of slots that a buffer id can number: it has 16 bits.
const SLOTS_MAX: usize = 1 << 16;

/// The default number of entries, if the arena has twice as many slots.
const ENTRIES_DEFAULT: usize = 1024;

/// The first group of which each ring begins at its first entry, on every kernel.
///
/// The kernel kept lower ones in a table until Linux 6.9, with the head of the ring before.
pub(crate) const GROUP_FIRST: u16 = 64;

/// The options of a [`BufferRing`](crate::BufferRing).
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
    datagram_details: bool,
    ready_bytes: Option<usize>,
    copies_nothing_under_pressure: bool,
    copied_bytes_max: Option<usize>,
    place: Option<Place>,
}

impl BufferRingOptions {
    /// Sets the place that the ring's slots are recorded with. Default: that of its registration.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "pools have a place"))]
    pub(crate) fn at_place(mut self, place: Place) -> BufferRingOptions {
        self.place = Some(place);
        self
    }

    /// Returns the place that was set.
    pub(super) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Sets the number of slots that lie ready for the kernel at most: a power of two up to 32,768.
    ///
    /// Fewer lie ready while messages are large: see [`ready_bytes`](Self::ready_bytes). The number
    /// is independent of the number of slots in the arena, because slots that users hold do not
    /// count. Default: half of the slots that are free, one at least and 1024 at most. A default
    /// ring that ran dry takes half of what is free then, up to half of the arena.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().entries(4096);
    /// # let _ = options;
    /// ```
    pub fn entries(mut self, entries: usize) -> BufferRingOptions {
        self.entries = Some(entries);
        self
    }

    /// Sets the buffer group id by which receives name the ring. Default: the driver's first free
    /// one; 64 for a ring of your own.
    ///
    /// Groups below 64 need Linux 6.8. An older kernel that has unregistered one goes on in the
    /// next ring of that group where it stopped, and would fill slots in another order.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().group(7);
    /// # let _ = options;
    /// ```
    pub fn group(mut self, group: u16) -> BufferRingOptions {
        self.group = Some(group);
        self
    }

    /// Copies messages shorter than `bytes` to the heap, so that 20 bytes do not hold a slot of
    /// 64 KiB. The slot goes back to the kernel at once. Default: 0, which copies nothing but
    /// [under pressure](Self::copy_under_pressure). [`copied_bytes_max`](Self::copied_bytes_max)
    /// bounds the copies.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().copy_below(256);
    /// # let _ = options;
    /// ```
    pub fn copy_below(mut self, bytes: usize) -> BufferRingOptions {
        self.copy_below = bytes;
        self
    }

    /// Lets one slot take several messages, each behind the one before (`IOU_PBUF_RING_INC`, Linux
    /// 6.12; an older kernel gives each message a slot of its own).
    ///
    /// Each message owns only its own range, but **a slot is free again only when every message in
    /// it is dropped**. Use this for streams: the kernel's
    /// datagram receive does not work well with it.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().incremental(true);
    /// # let _ = options;
    /// ```
    pub fn incremental(mut self, incremental: bool) -> BufferRingOptions {
        self.incremental = incremental;
        self
    }

    /// Lets one completion fill several slots (`IORING_RECVSEND_BUNDLE`, Linux 6.10; an older
    /// kernel fills one). Default: no.
    ///
    /// Parts of a bundle that lie in adjacent slots come out as one piece. Long messages do not
    /// need bundles: see [`ready_bytes`](Self::ready_bytes).
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().bundles(true);
    /// # let _ = options;
    /// ```
    pub fn bundles(mut self, bundles: bool) -> BufferRingOptions {
        self.bundles = bundles;
        self
    }

    /// Makes room in front of each datagram for the [details](crate::DatagramDetails) that its
    /// socket is asked for, and for the names of Unix sockets: 304 bytes of the slot in place of
    /// 44. Default: no.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().datagram_details(true);
    /// # let _ = options;
    /// ```
    pub fn datagram_details(mut self, yes: bool) -> BufferRingOptions {
        self.datagram_details = yes;
        self
    }

    pub(super) fn wants_datagram_details(&self) -> bool {
        self.datagram_details
    }

    /// Sets the bytes that are to lie ready for the kernel, counted as messages fill slots.
    /// Default: half of the processor's second-level cache, as sysfs tells it.
    ///
    /// The kernel fills all that lies ready before the program sees any of it, and what fits the
    /// cache is still there then. So bulk data finds few slots ready, and small messages as many as
    /// the ring has [entries](Self::entries). Messages that are larger than a slot also find up to
    /// 32 adjacent slots as one buffer: they come out in one piece, of 64 KiB and a sixteenth of
    /// the arena at most.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().ready_bytes(2 << 20);
    /// # let _ = options;
    /// ```
    pub fn ready_bytes(mut self, bytes: usize) -> BufferRingOptions {
        self.ready_bytes = Some(bytes);
        self
    }

    /// Sets whether short messages are copied to the heap while few slots of the arena are free, so
    /// that small remnants cannot hold all of it. Default: yes.
    ///
    /// A message is short if it uses less than a quarter of its slot. Few are fewer than an eighth,
    /// with those that lie ready in this ring. Slots of less than 512 bytes are never copied from.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().copy_under_pressure(false);
    /// # let _ = options;
    /// ```
    pub fn copy_under_pressure(mut self, yes: bool) -> BufferRingOptions {
        self.copies_nothing_under_pressure = !yes;
        self
    }

    /// Sets the bytes of copies that live at one time at most, counted for all rings of the arena.
    /// Default: a quarter of the arena, and 64 KiB at least.
    ///
    /// At the limit messages stay in their slots, and sockets wait for slots.
    ///
    /// ```
    /// let options = uring_arena::BufferRing::options().copied_bytes_max(1 << 20);
    /// # let _ = options;
    /// ```
    pub fn copied_bytes_max(mut self, bytes: usize) -> BufferRingOptions {
        self.copied_bytes_max = Some(bytes);
        self
    }

    pub(super) fn depth(&self, arena: &FixedArena, slot_bytes: u32) -> Depth {
        let mut depth = Depth::new(self.ready_bytes, slot_bytes, arena.slot_count());
        if self.incremental {
            depth.forbid_runs();
        }
        depth
    }

    pub(super) fn pressure(&self, arena: &Handle) -> Pressure {
        Pressure::new(!self.copies_nothing_under_pressure, self.copied_bytes_max, arena)
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

    /// Returns whether the number of entries was asked for.
    pub(super) fn has_entries(&self) -> bool {
        self.entries.is_some()
    }

    /// Returns the number of entries, if the kernel takes it.
    pub(super) fn entries_for(&self, slot_count: usize) -> Result<u16, RingError> {
        if slot_count > SLOTS_MAX {
            return Err(RingError::TooManySlots { slots: slot_count, limit: SLOTS_MAX });
        }
        match self.entries {
            None => Ok(prev_power_of_two((slot_count / 2).clamp(1, ENTRIES_DEFAULT)) as u16),
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

/// A buffer ring that could not be made or unregistered.
///
/// ```
/// use uring_arena::RingError;
///
/// let error = RingError::Entries { entries: 100, limit: 32_768 };
/// assert!(error.to_string().contains("a power of two"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel does not take this number of entries.
    #[error("{entries} entries: a buffer ring has a power of two of them, from 1 to {limit}")]
    Entries {
        /// The number of entries asked for.
        entries: usize,
        /// The number of entries that a ring can have.
        limit: usize,
    },
    /// The arena has more slots than there are buffer ids.
    #[error(
        "an arena of {slots} slots cannot feed a buffer ring: a buffer id numbers {limit} of them; use larger slots or several arenas"
    )]
    TooManySlots {
        /// The number of slots in the arena.
        slots: usize,
        /// The number of slots that a buffer id can number.
        limit: usize,
    },
    /// One slot is larger than the length field of a ring entry.
    #[error(
        "slots of {bytes} bytes are larger than the {limit} bytes that a ring entry can hold: use smaller slots"
    )]
    SlotTooLarge {
        /// Bytes in each slot.
        bytes: usize,
        /// Bytes that one entry can hold.
        limit: usize,
    },
    /// The group id has a ring already.
    #[error(
        "buffer group {group} is taken on this ring: choose another one, or let the driver choose"
    )]
    GroupTaken {
        /// The group id asked for.
        group: u16,
    },
    /// The driver has a ring for every group id that it chooses from.
    #[error("all {limit} buffer groups of this driver are in use: use another driver")]
    NoGroupLeft {
        /// The number of groups that one driver can have.
        limit: usize,
    },
    /// The ring was registered in another process, of which this one is a forked child.
    #[error(
        "this buffer ring is of process {of}, and was used in its forked child {to}: the kernel has it for the parent; register one there"
    )]
    OtherProcess {
        /// The process that registered the ring.
        of: u32,
        /// This process.
        to: u32,
    },
    /// The kernel lacks a feature.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// The feature that is missing.
        what: &'static str,
        /// The first version that has the feature.
        since: &'static str,
    },
    /// The limit on locked memory is too low: the array of a buffer ring counts against it.
    #[error("a buffer ring of {entries} entries is locked memory: {memlock}; or use fewer entries")]
    #[non_exhaustive]
    Memlock {
        /// The number of entries asked for.
        entries: usize,
        /// The bytes needed, both limits, and the remedy.
        memlock: Memlock,
    },
    /// The system has no memory for the ring.
    #[error("no memory for a buffer ring of {bytes} bytes: use fewer entries")]
    OutOfMemory {
        /// Bytes of the ring's array of entries.
        bytes: usize,
    },
    /// The call is forbidden, though the io_uring was made.
    #[error(
        "it is forbidden here to {action} ({}): {}",
        io::Error::from_raw_os_error(*errno),
        who_forbids(None)
    )]
    Forbidden {
        /// The action that was refused.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
    /// The kernel refused for another reason.
    #[error("the kernel refused to {action}: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The action that was refused.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
}

debug_is_display!(RingError);
into_io_error!(RingError);

impl RingError {
    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(self) -> io::ErrorKind {
        match self {
            RingError::GroupTaken { .. } => io::ErrorKind::AlreadyExists,
            RingError::NoGroupLeft { .. } => io::ErrorKind::QuotaExceeded,
            RingError::Unsupported { .. } => io::ErrorKind::Unsupported,
            RingError::Memlock { .. } | RingError::OutOfMemory { .. } => io::ErrorKind::OutOfMemory,
            RingError::Forbidden { .. } => io::ErrorKind::PermissionDenied,
            RingError::Refused { errno, .. } => io::Error::from_raw_os_error(errno).kind(),
            RingError::Entries { .. }
            | RingError::TooManySlots { .. }
            | RingError::SlotTooLarge { .. }
            | RingError::OtherProcess { .. } => io::ErrorKind::InvalidInput,
        }
    }
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
    fn entries_default_to_half_of_the_arena() {
        let default = |slots| BufferRingOptions::default().entries_for(slots);
        assert_eq!(default(1), Ok(1));
        assert_eq!(default(2), Ok(1));
        assert_eq!(default(100), Ok(32));
        assert_eq!(default(2048), Ok(1024));
        assert_eq!(default(1 << 16), Ok(1024));
        assert_eq!(
            default((1 << 16) + 1),
            Err(RingError::TooManySlots { slots: 65537, limit: 65536 })
        );
    }
}
