//! The reasons why an arena cannot be registered.

use std::io;

use crate::uring::kernel::{
    Memlock, MissingFeatureError, UnavailableError, is_refusal, who_forbids,
};

/// An arena that could not be registered on a ring, or not in the mode that was demanded.
///
/// ```
/// use uring_arena::RegisterError;
///
/// assert!(RegisterError::NoSlots.to_string().ends_with("use the region mode"));
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The mode needs more entries than a table of registered buffers can have.
    #[error(
        "{needed} {what} from index {offset} on do not fit in the {limit} entries that the kernel allows: \
         use larger slots, a lower index, or the region mode"
    )]
    TooManyEntries {
        /// The number of entries that the mode needs.
        needed: usize,
        /// The index of the first one.
        offset: u32,
        /// The number of entries that a table can have.
        limit: usize,
        /// The parts of the arena that the entries stand for.
        what: &'static str,
    },
    /// The ring's table has no free range of entries that is long enough.
    #[error(
        "{needed} {what} do not fit in the ring's table of registered buffers, whose longest free range has {free} entries: \
         unregister another arena, use larger slots, or the region mode"
    )]
    TableFull {
        /// The number of entries that the mode needs.
        needed: usize,
        /// The number of entries in the longest free range.
        free: usize,
        /// The parts of the arena that the entries stand for.
        what: &'static str,
    },
    /// One slot is larger than one entry may be.
    #[error(
        "a slot of {slot_bytes} bytes is larger than the {limit} bytes that one registered buffer can have: use smaller slots"
    )]
    SlotTooLarge {
        /// Bytes of one slot.
        slot_bytes: usize,
        /// Bytes that one entry can have.
        limit: usize,
    },
    /// The arena has no slots of equal size to number.
    #[error(
        "the arena has no slots of equal size, so its blocks cannot have an index each: use the region mode"
    )]
    NoSlots,
    /// The limit on locked memory is too low.
    #[error("registered memory is locked memory: {0}")]
    Memlock(Memlock),
    /// The system has no memory for the registration.
    #[error(
        "the kernel has no memory to register {bytes} bytes in {entries} entries: register fewer bytes, or use the region mode"
    )]
    OutOfMemory {
        /// Bytes to register.
        bytes: usize,
        /// The number of entries to register them in.
        entries: usize,
    },
    /// The ring has a table of registered buffers already.
    #[error(
        "the ring has a table of registered buffers already: place the arena into it (RegisterOptions::at), or unregister it first"
    )]
    TableInUse,
    /// The ring has no table to place the arena into.
    #[error(
        "the ring has no table of registered buffers to place the arena into: make one by register_buffers_sparse, or leave out `at`"
    )]
    NoTable,
    /// The table of the ring is too short.
    #[error(
        "{needed} entries from index {offset} on do not fit in the ring's table: make it larger (register_buffers_sparse), or use the region mode"
    )]
    TableTooShort {
        /// The number of entries needed.
        needed: usize,
        /// The index of the first one.
        offset: u32,
    },
    /// The kernel cannot pin this memory.
    #[error(
        "the kernel cannot pin the memory of entry {entry} (EFAULT): it must be writable, and private or anonymous; shared file mappings are refused"
    )]
    MemoryRefused {
        /// The first entry that was refused, counted from the arena's first.
        entry: usize,
    },
    /// The ring has a single issuer (`SINGLE_ISSUER`), which is another thread.
    #[error(
        "the ring was set up for a single issuer, on another thread: register on the thread that submits"
    )]
    WrongThread,
    /// The arena was registered in another process, of which this one is a forked child.
    #[error(
        "this registration is of process {of}, and was used in its forked child {to}: the kernel has it for the parent; register the arena there"
    )]
    OtherProcess {
        /// The process that registered the arena.
        of: u32,
        /// This process.
        to: u32,
    },
    /// The source of the clone has nothing to clone, or refuses it.
    #[error("{0}")]
    NoSource(&'static str),
    /// The kernel lacks a feature.
    #[error(transparent)]
    Missing(#[from] MissingFeatureError),
    /// There is no io_uring to ask what it can do.
    #[error(transparent)]
    Unavailable(#[from] UnavailableError),
    /// The call is forbidden, though the ring was made.
    #[error(
        "io_uring_register(2) is forbidden here ({}), at {step}: {}",
        io::Error::from_raw_os_error(*errno),
        who_forbids(None)
    )]
    Forbidden {
        /// The step that was refused.
        step: &'static str,
        /// The error number.
        errno: i32,
    },
    /// The kernel answered another error.
    #[error("io_uring_register(2) failed at {step}: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// The step that failed.
        step: &'static str,
        /// The error number.
        errno: i32,
    },
}

debug_is_display!(RegisterError);
into_io_error!(RegisterError);

impl RegisterError {
    /// Wraps an error of `io_uring_register(2)` that says nothing of the arguments.
    pub(crate) fn system(step: &'static str, error: &io::Error) -> RegisterError {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        if is_refusal(errno) {
            RegisterError::Forbidden { step, errno }
        } else {
            RegisterError::System { step, errno }
        }
    }

    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            RegisterError::Memlock(_) | RegisterError::OutOfMemory { .. } => {
                io::ErrorKind::OutOfMemory
            }
            RegisterError::TableFull { .. } => io::ErrorKind::QuotaExceeded,
            RegisterError::TableInUse => io::ErrorKind::ResourceBusy,
            RegisterError::NoTable | RegisterError::NoSource(_) => io::ErrorKind::NotFound,
            RegisterError::Forbidden { .. } => io::ErrorKind::PermissionDenied,
            RegisterError::Missing(error) => error.kind(),
            RegisterError::Unavailable(error) => error.kind(),
            RegisterError::System { errno, .. } => io::Error::from_raw_os_error(*errno).kind(),
            RegisterError::TooManyEntries { .. }
            | RegisterError::SlotTooLarge { .. }
            | RegisterError::NoSlots
            | RegisterError::TableTooShort { .. }
            | RegisterError::MemoryRefused { .. }
            | RegisterError::OtherProcess { .. }
            | RegisterError::WrongThread => io::ErrorKind::InvalidInput,
        }
    }
}
