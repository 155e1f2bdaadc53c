//! What the kernel side can refuse.

use crate::uring::{Feature, Memlock, RegistrationMode};

/// io_uring cannot be used here: why, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableError {
    /// The kernel has no io_uring (`ENOSYS`).
    #[error(
        "this kernel ({kernel}) has no io_uring: it needs Linux 5.1 or newer, built with CONFIG_IO_URING; \
         a container sandbox may also hide it"
    )]
    NotInKernel {
        /// What the kernel calls itself.
        kernel: String,
    },
    /// The administrator switched it off ([kernel.io_uring_disabled], Linux 6.6).
    ///
    /// [kernel.io_uring_disabled]:
    /// https://docs.kernel.org/admin-guide/sysctl/kernel.html#io-uring-disabled
    #[error("io_uring is switched off: kernel.io_uring_disabled={value}; {remedy}")]
    DisabledBySysctl {
        /// 1: for all but a group and CAP_SYS_ADMIN; 2: for all.
        value: u32,
        /// The command that lets this process use it.
        remedy: String,
    },
    /// The call is refused although the sysctl allows it: a seccomp filter or a security module.
    #[error(
        "io_uring is refused (EPERM) though kernel.io_uring_disabled allows it: a seccomp filter or security module \
         forbids io_uring_setup, as container runtimes do by default; start the container with a profile that allows \
         io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=PROFILE)"
    )]
    Forbidden,
    /// The system has no room for a ring.
    #[error("the system refused a ring of {entries} entries: {reason}")]
    Refused {
        /// Entries asked for.
        entries: u32,
        /// What the system answered, and what to do about it.
        reason: String,
    },
}

/// A facility of the kernel that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} needs Linux {} or newer: this kernel does not offer it", feature.name(), feature.since())]
#[non_exhaustive]
pub struct MissingFeatureError {
    /// What is missing.
    pub feature: Feature,
}

/// An arena that could not be registered on a ring, or not the way that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// More entries than a table of registered buffers can have.
    #[error(
        "{needed} {what} from index {offset} on do not fit in the {limit} entries that the kernel allows: \
         use larger slots, a lower index, or the region mode"
    )]
    TooManyEntries {
        /// Entries that the mode needs.
        needed: usize,
        /// Where they should begin.
        offset: u32,
        /// Entries that a table can have.
        limit: usize,
        /// What the entries stand for.
        what: &'static str,
    },
    /// The ring's table has no free range of entries that is long enough.
    #[error(
        "{needed} {what} do not fit in the ring's table of registered buffers, whose longest free range has {free} entries: \
         unregister another arena, use larger slots, or the region mode"
    )]
    TableFull {
        /// Entries that the mode needs.
        needed: usize,
        /// Entries in the longest free range.
        free: usize,
        /// What the entries stand for.
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
    #[error("the kernel has no memory to register {bytes} bytes in {entries} entries")]
    OutOfMemory {
        /// Bytes to register.
        bytes: usize,
        /// Entries to register them in.
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
        /// Entries needed.
        needed: usize,
        /// Where they should begin.
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
    /// The ring belongs to one thread (`SINGLE_ISSUER`), and this is another.
    #[error(
        "the ring was set up for a single issuer, on another thread: register on the thread that submits"
    )]
    WrongThread,
    /// There is nothing to clone from.
    #[error("{0}")]
    NoSource(&'static str),
    /// The kernel lacks a facility.
    #[error(transparent)]
    Missing(#[from] MissingFeatureError),
    /// The mode above was asked for alone, or the arena is not registered.
    #[error("the arena is not registered on this ring: it is on the mode {mode:?}")]
    NotRegistered {
        /// The mode that it is on.
        mode: RegistrationMode,
    },
    /// Anything else that the kernel answered.
    #[error("io_uring_register(2) failed at {step}: {reason}")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the kernel answered.
        reason: String,
    },
}

/// An operation whose file is open with `O_DIRECT` and whose place or memory it does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectError {
    /// The file does not support direct I/O.
    #[error(
        "{path} cannot be read or written with O_DIRECT ({reason}): open it without, for buffered I/O"
    )]
    Unsupported {
        /// The file.
        path: String,
        /// What the system answered.
        reason: String,
    },
    /// The offset is not a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs offsets that are multiples of {required} bytes: {offset} is not"
    )]
    Offset {
        /// The offset asked for, in bytes.
        offset: u64,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
    /// The length is not a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs lengths that are multiples of {required} bytes: {len} is not; \
         read the last part of a file with an aligned length that reaches past its end"
    )]
    Length {
        /// The length asked for, in bytes.
        len: usize,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
    /// The memory does not begin on a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs memory that begins on a multiple of {required} bytes: {address:#x} does not; \
         build the arena with alignment({required}) and start at the slot's first byte"
    )]
    Address {
        /// Where the memory begins.
        address: usize,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
}
