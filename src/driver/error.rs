//! The errors of a driver.

use std::io;
use std::os::fd::OwnedFd;

use crate::system::DirectError;
use crate::uring::{Memlock, RingError, room_remedy, who_forbids};

/// An error of making a driver, or of an operation that it could not take.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// io_uring is switched off for this user or this container.
    #[error("io_uring is forbidden here ({}): {}", errno_text(*errno), who_forbids(*sysctl))]
    #[non_exhaustive]
    Forbidden {
        /// The error number.
        errno: i32,
        /// The value of `kernel.io_uring_disabled`, where there is one (Linux 6.6) and it may be
        /// the cause. It is 1 or 2 if the setting is what forbids.
        sysctl: Option<u32>,
    },
    /// The limit on locked memory is too low: the queues of a ring count against it.
    #[error("the queues of a ring of {entries} entries are locked memory: {memlock}")]
    #[non_exhaustive]
    Memlock {
        /// The entries asked for.
        entries: u32,
        /// The bytes needed, both limits, and the remedy.
        memlock: Memlock,
    },
    /// The system has no memory, or no descriptor, for a ring.
    #[error(
        "the system has no room for a ring of {entries} entries ({}): {}",
        errno_text(*errno),
        room_remedy(*errno)
    )]
    NoRoom {
        /// The entries asked for.
        entries: u32,
        /// The error number.
        errno: i32,
    },
    /// The kernel has no io_uring, or one that is too old.
    #[error("this kernel has no {what}: it came with Linux {since}")]
    Unsupported {
        /// The name of what is missing.
        what: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// The kernel takes no queue of this length.
    #[error("a {queue} queue of {entries} entries cannot be made: ask for 1 to {limit}")]
    Entries {
        /// The name of the queue: `submission` or `completion`.
        queue: &'static str,
        /// The entries asked for.
        entries: usize,
        /// The most entries of a queue.
        limit: usize,
    },
    /// The driver cannot number so many operations, or none at all.
    #[error("a driver of {operations} `operations` cannot be made: ask for 1 to {limit}")]
    Operations {
        /// The operations asked for.
        operations: usize,
        /// The most operations of a driver.
        limit: usize,
    },
    /// The driver has as many operations as it was built for.
    #[error(
        "{limit} operations are under way, which is all that this driver was built for: finish some, or build it with more `operations`"
    )]
    TooManyOperations {
        /// The most operations of this driver.
        limit: usize,
    },
    /// The id was given out by another driver.
    #[error(
        "this {what} is of driver {of}, and was given to driver {to}: use an id on the driver that gave it out"
    )]
    OtherDriver {
        /// The kind of the id.
        what: &'static str,
        /// The number of the driver that gave the id out; `{:?}` of a driver shows it.
        of: u32,
        /// The number of the driver that was called.
        to: u32,
    },
    /// The driver was built in another process, of which this one is a forked child.
    #[error(
        "this driver is of process {of}, and was used in its forked child {to}: the ring is not the child's; build a driver there"
    )]
    OtherProcess {
        /// The process that built the driver.
        of: u32,
        /// This process.
        to: u32,
    },
    /// The buffer ring was unregistered.
    #[error("this driver has no such buffer ring any more: it was unregistered")]
    UnknownRing,
    /// The arena was unregistered.
    #[error("this driver has no such arena any more: it was unregistered")]
    UnknownArena,
    /// The file was closed.
    #[error("this driver has no such file any more: it was closed")]
    UnknownFile,
    /// The operation is over.
    #[error("this driver has no such operation any more: its event was taken")]
    UnknownOperation,
    /// The socket's connection is over, or the program closed it.
    #[error(
        "the connection of this socket is over, and nothing can be sent on it: its `Closed` event comes"
    )]
    SocketEnded,
    /// The timer is over.
    #[error("this driver has no such timer any more: its time is over")]
    UnknownTimer,
    /// The driver cannot take an entry of the program's with such a flag.
    #[error("the driver takes no entry with {flag}")]
    EntryFlag {
        /// The name of the flag, and the reason.
        flag: &'static str,
    },
    /// The driver cannot take an entry of the program's that receives into a ring of its own.
    #[error(
        "the buffer group {group} is the driver's: let `receive` use it, or take another group"
    )]
    EntryGroup {
        /// The group id.
        group: u16,
    },
    /// A chain of linked entries does not fit into the submission queue.
    #[error(
        "{entries} linked entries are more than the {limit} of the submission queue: link fewer, or build the driver with more `entries`"
    )]
    ChainTooLong {
        /// The entries of the chain.
        entries: usize,
        /// The entries of the submission queue.
        limit: usize,
    },
    /// The socket is closed.
    #[error("this driver has no such socket any more: its `Closed` event was taken")]
    UnknownSocket,
    /// Sockets receive into the ring.
    #[error(
        "{sockets} sockets receive into this buffer ring: close them, and take their `Closed` events, first"
    )]
    RingInUse {
        /// The number of sockets that receive into it.
        sockets: usize,
    },
    /// The kernel did not let go of a buffer ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A slot has no room for a datagram behind its header.
    #[error(
        "slots of {bytes} bytes have no room for a datagram behind its header: at least {needed} bytes are needed"
    )]
    SlotTooSmall {
        /// The bytes of a slot.
        bytes: usize,
        /// The bytes that a slot needs.
        needed: usize,
    },
    /// The call does not receive from a socket of this type.
    #[error("{call} does not take a {}: use {instead}", type_text(*socket_type))]
    SocketType {
        /// The name of the call.
        call: &'static str,
        /// The type of the socket (`SO_TYPE`), such as `SOCK_DGRAM`.
        socket_type: i32,
        /// The call that takes it.
        instead: &'static str,
    },
    /// Several messages share a slot in this ring.
    #[error(
        "this ring lets several messages share a slot (`incremental`), which datagrams cannot: use another ring"
    )]
    RingIsIncremental,
    /// A system call failed.
    #[error("{action} failed: {}{}", errno_text(*errno), system_remedy(*errno))]
    System {
        /// The name of what was tried.
        action: &'static str,
        /// The error number.
        errno: i32,
    },
}

impl DriverError {
    /// Wraps the error of a system call that makes a part of a driver with `entries`.
    ///
    /// A missing descriptor or missing memory is [`DriverError::NoRoom`], whichever part lacks it.
    pub(super) fn no_room_or(action: &'static str, error: &io::Error, entries: u32) -> DriverError {
        match error.raw_os_error() {
            Some(errno @ (libc::ENOMEM | libc::EMFILE | libc::ENFILE)) => {
                DriverError::NoRoom { entries, errno }
            }
            _ => DriverError::system(action, error),
        }
    }

    /// Wraps the error of a system call.
    pub(super) fn system(action: &'static str, error: &io::Error) -> DriverError {
        DriverError::System { action, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// A read, write or send that a [`Driver`](crate::Driver) could not take.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The buffer is full.
    #[error(
        "the buffer has no room left: its {capacity} bytes are all written; clear it, or give a new one"
    )]
    NoRoom {
        /// The bytes that the buffer holds.
        capacity: usize,
    },
    /// The bytes would lie beyond the last offset that a file can have.
    #[error(
        "{len} bytes at offset {offset} reach beyond {limit}, the last offset of any file: give an offset in the file, or 0 for a pipe or socket"
    )]
    Offset {
        /// The offset asked for, in bytes.
        offset: u64,
        /// The bytes to read or write.
        len: usize,
        /// The highest offset of any file, in bytes.
        limit: u64,
    },
    /// A message has more pieces than the kernel takes by one call. A part of it would go out as a
    /// message of its own.
    #[error(
        "a message of {pieces} pieces is more than the {limit} that one call takes: join some of them"
    )]
    TooManyPieces {
        /// The pieces that are not empty.
        pieces: usize,
        /// The most pieces of a message.
        limit: usize,
    },
    /// An earlier write or send ended in the middle of its bytes, so later ones would be taken for
    /// its rest. It comes as the error of an event.
    #[error(
        "an earlier write or send of this stream ended after {done} of its {len} bytes, and nothing may follow it: close the connection, or send the rest on a file added anew"
    )]
    Torn {
        /// The bytes that went out.
        done: usize,
        /// The bytes that were to go out.
        len: usize,
    },
    /// An earlier sync of the file failed. The kernel may have dropped bytes that it could not
    /// write, and would not tell so again. It comes as the error of an event.
    #[error(
        "an earlier sync of this file failed ({}), and bytes before it may be lost: write them again to a file that is added anew, and sync that",
        errno_text(*errno)
    )]
    NotDurable {
        /// The error number of the sync.
        errno: i32,
    },
    /// The file is open with `O_DIRECT`, and offset or memory are not what it asks for.
    #[error(transparent)]
    Direct(#[from] DirectError),
    /// The driver could not take the operation.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// An operation that was not taken: its memory, and the reason.
///
/// ```
/// use uring_arena::{Buffer, SubmitError};
///
/// fn again(refused: SubmitError<Buffer>) -> Buffer {
///     eprintln!("{refused}");
///     refused.memory
/// }
/// # let _ = again;
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct SubmitError<M> {
    /// The reason.
    pub error: TransferError,
    /// The memory, as it was given.
    pub memory: M,
}

impl<M> SubmitError<M> {
    pub(super) fn new(error: impl Into<TransferError>, memory: M) -> SubmitError<M> {
        SubmitError { error: error.into(), memory }
    }

    /// Returns the error with memory of another type.
    pub(super) fn map<N>(self, memory: impl FnOnce(M) -> N) -> SubmitError<N> {
        SubmitError { error: self.error, memory: memory(self.memory) }
    }
}

impl<M> std::fmt::Debug for SubmitError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A socket, pipe or listener that a [`Driver`](crate::Driver) could not take: the descriptor, and
/// the reason.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use uring_arena::SocketError;
///
/// fn later(refused: SocketError, waiting: &mut Vec<OwnedFd>) {
///     eprintln!("{refused}");
///     waiting.push(refused.socket);
/// }
/// # let _ = later;
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct SocketError {
    /// The reason.
    pub error: DriverError,
    /// The descriptor, as it was given: open, and untouched.
    pub socket: OwnedFd,
}

impl SocketError {
    pub(super) fn new(error: DriverError, socket: OwnedFd) -> SocketError {
        SocketError { error, socket }
    }
}

/// A file or socket that a [`Driver`](crate::Driver) could not take: the descriptor, and the
/// reason.
#[derive(thiserror::Error)]
#[error("the driver cannot take the file: asking the kernel what it is failed ({reason})")]
#[non_exhaustive]
pub struct FileError {
    /// The answer of the kernel.
    pub reason: io::Error,
    /// The descriptor, as it was given.
    pub file: OwnedFd,
}

debug_is_display!(DriverError, TransferError, SocketError, FileError);
into_io_error!(DriverError, TransferError);

impl DriverError {
    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match *self {
            DriverError::Forbidden { .. } => io::ErrorKind::PermissionDenied,
            DriverError::Memlock { .. } => io::ErrorKind::OutOfMemory,
            DriverError::NoRoom { errno, .. } | DriverError::System { errno, .. } => {
                errno_text(errno).kind()
            }
            DriverError::Unsupported { .. } => io::ErrorKind::Unsupported,
            DriverError::TooManyOperations { .. } => io::ErrorKind::QuotaExceeded,
            DriverError::UnknownRing
            | DriverError::UnknownArena
            | DriverError::UnknownFile
            | DriverError::UnknownOperation
            | DriverError::UnknownTimer
            | DriverError::UnknownSocket => io::ErrorKind::NotFound,
            DriverError::SocketEnded => io::ErrorKind::BrokenPipe,
            DriverError::RingInUse { .. } => io::ErrorKind::ResourceBusy,
            DriverError::Ring(error) => error.kind(),
            DriverError::Entries { .. }
            | DriverError::Operations { .. }
            | DriverError::OtherDriver { .. }
            | DriverError::OtherProcess { .. }
            | DriverError::SocketType { .. }
            | DriverError::EntryFlag { .. }
            | DriverError::EntryGroup { .. }
            | DriverError::ChainTooLong { .. }
            | DriverError::SlotTooSmall { .. }
            | DriverError::RingIsIncremental => io::ErrorKind::InvalidInput,
        }
    }
}

impl TransferError {
    /// Returns whether the same operation may be taken later.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_passing(&self) -> bool {
        let TransferError::Driver(error) = self else { return false };
        matches!(
            error,
            DriverError::TooManyOperations { .. } | DriverError::System { errno: libc::EBUSY, .. }
        )
    }

    /// Returns the kind of the error as an `io::Error`.
    fn kind(&self) -> io::ErrorKind {
        match self {
            TransferError::NoRoom { .. }
            | TransferError::Offset { .. }
            | TransferError::TooManyPieces { .. } => io::ErrorKind::InvalidInput,
            TransferError::Torn { .. } => io::ErrorKind::BrokenPipe,
            TransferError::NotDurable { errno } => errno_text(*errno).kind(),
            TransferError::Direct(error) => error.kind(),
            TransferError::Driver(error) => error.kind(),
        }
    }
}

impl<M> From<SubmitError<M>> for io::Error {
    /// Makes an error of the reason, and drops the memory.
    fn from(refused: SubmitError<M>) -> io::Error {
        refused.error.into()
    }
}

impl From<SocketError> for io::Error {
    /// Makes an error of the reason, and closes the descriptor.
    fn from(refused: SocketError) -> io::Error {
        refused.error.into()
    }
}

impl From<FileError> for io::Error {
    /// Returns the answer of the kernel, with its error number, and closes the descriptor.
    fn from(error: FileError) -> io::Error {
        error.reason
    }
}

fn type_text(socket_type: i32) -> String {
    match socket_type {
        libc::SOCK_STREAM => "stream socket (SOCK_STREAM)".into(),
        libc::SOCK_DGRAM => "datagram socket (SOCK_DGRAM)".into(),
        libc::SOCK_SEQPACKET => "socket of messages (SOCK_SEQPACKET)".into(),
        libc::SOCK_RAW => "raw socket (SOCK_RAW)".into(),
        other => format!("socket of type {other}"),
    }
}

/// Returns what mends the failure of a system call, where the number tells.
fn system_remedy(errno: i32) -> String {
    match errno {
        libc::EMFILE | libc::ENFILE => format!("; {}", room_remedy(errno)),
        libc::EADDRINUSE => "; take another address, or end what listens there".into(),
        libc::EADDRNOTAVAIL => "; take an address of this machine (`ip address`)".into(),
        _ => String::new(),
    }
}

fn errno_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forbids_io_uring_is_told_with_what_mends_it() {
        let text = |sysctl| DriverError::Forbidden { errno: libc::EPERM, sysctl }.to_string();
        assert!(
            text(Some(2)).contains("kernel.io_uring_disabled=2; nobody may"),
            "{}",
            text(Some(2))
        );
        assert!(text(Some(1)).contains("kernel.io_uring_group"), "{}", text(Some(1)));
        assert!(text(Some(0)).contains("seccomp"), "{}", text(Some(0)));
        assert!(text(None).contains("seccomp"), "{}", text(None));
        let text = |errno| DriverError::NoRoom { entries: 64, errno }.to_string();
        assert!(
            text(libc::EMFILE).contains("64 entries") && text(libc::EMFILE).contains("ulimit -n")
        );
        assert!(text(libc::ENOMEM).contains("fewer entries"));
        let text = |errno| DriverError::System { action: "listening", errno }.to_string();
        assert!(text(libc::EMFILE).contains("ulimit -n"), "{}", text(libc::EMFILE));
        assert!(text(libc::ENFILE).contains("fs.file-max"), "{}", text(libc::ENFILE));
        assert!(text(libc::EADDRINUSE).contains("another address"), "{}", text(libc::EADDRINUSE));
        assert!(text(libc::EIO).ends_with(&errno_text(libc::EIO).to_string()));
    }

    #[test]
    fn debug_is_the_text() {
        let error = DriverError::TooManyOperations { limit: 7 };
        assert_eq!(format!("{error:?}"), error.to_string());
        let error = SubmitError::new(error, ());
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
