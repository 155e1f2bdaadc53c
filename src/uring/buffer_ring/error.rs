//! The reasons why a buffer ring cannot be made or unregistered.

/// A buffer ring that could not be made, or taken down.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The number of entries is not one that the kernel takes.
    #[error("{entries} entries: a buffer ring has a power of two of them, from 1 to {limit}")]
    Entries {
        /// Entries asked for.
        entries: usize,
        /// Entries that a ring has at most.
        limit: usize,
    },
    /// The arena has more slots than buffer ids.
    #[error(
        "an arena of {slots} slots cannot feed a buffer ring: a buffer id numbers {limit} of them; use larger slots or several arenas"
    )]
    TooManySlots {
        /// Slots of the arena.
        slots: usize,
        /// Slots that a buffer id can number.
        limit: usize,
    },
    /// One slot is larger than the length field of a ring entry.
    #[error(
        "slots of {bytes} bytes are larger than the {limit} bytes that a ring entry can tell: use smaller slots"
    )]
    SlotTooLarge {
        /// Bytes in each slot.
        bytes: usize,
        /// Bytes that one entry can tell.
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
    /// Sockets receive into the ring.
    #[error(
        "{sockets} sockets receive into this ring: close them, and take their `Closed` events, first"
    )]
    InUse {
        /// Sockets that receive into it.
        sockets: usize,
    },
    /// The ring is not one of this driver's, or was taken down.
    #[error("no such buffer ring in this driver: it belongs to another driver or was taken down")]
    Unknown,
    /// The driver has a ring for every group id that it chooses from.
    #[error("all {limit} buffer groups of this driver are in use: use another driver")]
    NoGroupLeft {
        /// Groups that one driver can have.
        limit: usize,
    },
    /// The kernel cannot do it.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// No memory for the ring, or the user may lock no more.
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
        /// What was tried.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
}

debug_is_display!(RingError);
