//! The reasons why a buffer ring cannot be made or unregistered.

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
    /// The kernel lacks a feature.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// The feature that is missing.
        what: &'static str,
        /// The first version that has the feature.
        since: &'static str,
    },
    /// The kernel has no memory for the ring, or the user may lock no more.
    #[error(
        "no memory for a buffer ring of {bytes} bytes: it counts against RLIMIT_MEMLOCK (now {soft} bytes for this user, `ulimit -l`); raise the limit or use fewer entries"
    )]
    Memory {
        /// Bytes of the ring's array of entries.
        bytes: usize,
        /// The soft limit now, in bytes.
        soft: u64,
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
