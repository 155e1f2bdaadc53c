//! One socket: what it is, and where its operation is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use io_uring::{opcode, squeue, types};

use crate::driver::{DriverError, Event, SocketId, SocketState};
use crate::slab::Key;
use crate::system::socket_type;
use crate::uring::{
    BufferRing, Feature, FromSlot, QuickClose, RawAddress, Remaining, Status, is_listening,
};

/// The kind of a socket, and the buffer ring that it receives into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stream(Key),
    Pipe(Key),
    Datagrams(Key),
    /// A connection that keeps the boundaries of messages (`SOCK_SEQPACKET`): received from like a
    /// datagram socket, and ended like a stream.
    Messages(Key),
    Listener,
}

impl Source {
    /// Returns the key of the buffer ring.
    #[inline]
    pub(super) fn ring(self) -> Option<Key> {
        match self {
            Source::Stream(ring)
            | Source::Pipe(ring)
            | Source::Datagrams(ring)
            | Source::Messages(ring) => Some(ring),
            Source::Listener => None,
        }
    }

    /// Returns what lets one operation of this kind bring many completions.
    pub(super) fn multishot(self) -> Feature {
        match self {
            Source::Stream(_) | Source::Datagrams(_) | Source::Messages(_) => {
                Feature::RecvMultishot
            }
            Source::Pipe(_) => Feature::ReadMultishot,
            Source::Listener => Feature::AcceptMultishot,
        }
    }

    /// Returns the source that suits the type of a descriptor, or an error if the call that asked
    /// for this one does not take the type.
    ///
    /// A descriptor of another kind is left to the kernel, whose error ends it.
    pub(crate) fn of_type(self, fd: BorrowedFd<'_>) -> Result<Source, DriverError> {
        let Some(socket_type) = socket_type(fd) else { return Ok(self) };
        let refused = |call, instead| Err(DriverError::SocketType { call, socket_type, instead });
        match (self, socket_type) {
            (Source::Datagrams(ring), libc::SOCK_SEQPACKET) => Ok(Source::Messages(ring)),
            (Source::Datagrams(_), libc::SOCK_STREAM) => {
                refused("`receive_datagrams`", "`receive`")
            }
            (Source::Stream(_) | Source::Pipe(_), libc::SOCK_STREAM) => Ok(self),
            (Source::Stream(_), _) => refused("`receive`", "`receive_datagrams`"),
            (Source::Pipe(_), _) => refused("`read_pipe`", "`receive_datagrams`"),
            _ => Ok(self),
        }
    }
}

/// The state of a socket's operation.
///
/// | state      | the operation                                      | goes on to            |
/// |------------|----------------------------------------------------|-----------------------|
/// | `Idle`     | is to be armed, or paused, or over                 | `InFlight`            |
/// | `InFlight` | is with the kernel                                 | `Idle`, `Pausing`     |
/// | `Pausing`  | is with the kernel, which was asked to cancel it   | `Idle`                |
/// | `Starved`  | found no slot, and waits in the queue of its ring  | `InFlight`, `Idle`    |
/// | `Polling`  | is a poll: the ring has given its slots back       | `Starved`, `Idle`     |
/// | `Delayed`  | failed for a lack of the system's, and waits       | `Idle`                |
/// | `Connecting` | is a connect                                     | `Idle`                |
/// | `Finished` | is over: the peer has finished, the socket stays   | `Ending`              |
/// | `Ending`   | is over: the sending direction is to end           | none                  |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    InFlight,
    Pausing,
    Starved,
    Polling,
    Delayed,
    Connecting,
    Finished,
    Ending,
}

/// The consequence of an accept that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFailure {
    /// The error was of one connection, or of a form that the kernel does not know: again.
    Again,
    /// The system lacked something for now: again, but later.
    Later,
    /// The descriptor is no listener.
    End,
}

/// The wish of the program for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Open,
    Paused,
    Closed,
}

/// A socket, pipe or listener. The driver owns it until the kernel has let go of it.
pub(super) struct Socket {
    /// The descriptor, which the sending direction shares.
    pub(super) fd: Rc<QuickClose>,
    /// The number of the program's for the socket.
    pub(super) token: u64,
    /// The generation of the socket's key while a receive of a stream is in flight, else 0. One
    /// comparison with it says whether a completion may take the fast path.
    pub(super) fast_generation: u32,
    pub(super) source: Source,
    pub(super) phase: Phase,
    pub(super) wanted: Wanted,
    /// One operation brings many completions; off where the kernel is too old for it.
    pub(super) multishot: bool,
    /// The marks [`SERVED`] and [`ACTIVE`], set when bytes come.
    pub(super) came: u8,
    /// The slots that the socket got in its turn so far, while sockets take turns.
    pub(super) turn: u8,
    /// The socket stays open when the peer has finished.
    pub(super) half_open: bool,
    /// The sending direction among the files, once something was sent.
    pub(super) sending: Option<Key>,
}

/// Bytes came since the socket was armed last.
pub(super) const SERVED: u8 = 1;

/// Something came since silence was looked for last.
pub(super) const ACTIVE: u8 = 2;

impl Socket {
    pub(super) fn new(fd: OwnedFd, source: Source, multishot: bool) -> Socket {
        let (phase, wanted) = (Phase::Idle, Wanted::Open);
        let fd = Rc::new(QuickClose::new(fd));
        let (fast_generation, token, came, turn) = (0, 0, 0, 0);
        let (half_open, sending) = (false, None);
        Socket {
            fd,
            token,
            fast_generation,
            source,
            phase,
            wanted,
            multishot,
            came,
            turn,
            half_open,
            sending,
        }
    }

    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.phase, Phase::InFlight | Phase::Pausing | Phase::Polling | Phase::Connecting)
    }

    /// Returns the state, as the program is told it.
    pub(super) fn state(&self) -> SocketState {
        match (self.wanted, self.phase) {
            (Wanted::Closed, _) | (_, Phase::Ending) => SocketState::Closing,
            (_, Phase::Connecting) => SocketState::Connecting,
            (_, Phase::Finished) => SocketState::Finished,
            (Wanted::Paused, _) => SocketState::Paused,
            (_, Phase::Starved | Phase::Polling) => SocketState::Starved,
            (_, Phase::Delayed) => SocketState::Delayed,
            (_, Phase::Idle | Phase::InFlight | Phase::Pausing) => SocketState::Open,
        }
    }

    /// Builds the entry that waits until there is something to receive.
    pub(super) fn poll_entry(&self) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(self.fd.as_raw_fd()), libc::POLLIN as u32).build()
    }

    /// Builds the entry that accepts, or that receives into the socket's buffer ring: one message
    /// if `once`.
    pub(super) fn entry(&self, ring: Option<&BufferRing>, once: bool) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw_fd());
        let nobody = std::ptr::null_mut();
        match (self.source, self.multishot && !once, ring) {
            (Source::Stream(_), true, Some(ring)) => ring.receive_multi(fd),
            (Source::Stream(_), false, Some(ring)) => ring.receive_once(fd),
            (Source::Pipe(_), true, Some(ring)) => ring.read_multi(fd),
            (Source::Pipe(_), false, Some(ring)) => ring.read_once(fd),
            (Source::Datagrams(_) | Source::Messages(_), _, Some(ring)) => {
                ring.receive_datagrams(fd)
            }
            (Source::Listener, true, _) => {
                opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
            }
            (Source::Listener, false, _) => {
                opcode::Accept::new(fd, nobody, nobody.cast()).flags(libc::SOCK_CLOEXEC).build()
            }
            (_, _, None) => unreachable!("a buffer ring stays while it has sockets"),
        }
    }

    /// Counts the slots of `bytes` in the socket's turn.
    pub(super) fn count_in_turn(&mut self, bytes: usize, slot_bytes: usize) {
        let slots = bytes.div_ceil(slot_bytes).min(u8::MAX.into());
        self.turn = self.turn.saturating_add(slots as u8);
    }

    /// Returns whether the socket's turn is over, and begins the next one then. A piece of many
    /// slots ends it, and as many short ones. What was too much counts in the next one.
    pub(super) fn ends_turn(&mut self, piece_slots: u32) -> bool {
        // A piece has 32 slots at most.
        let left = self.turn.checked_sub(piece_slots as u8);
        self.turn = left.unwrap_or(self.turn);
        left.is_some()
    }

    /// Returns whether a receive may fail by an error that is not of the socket.
    pub(super) fn has_pending_errors(&self) -> bool {
        matches!(self.source, Source::Datagrams(_) | Source::Messages(_))
    }

    /// Decides whether a listener goes on after an error.
    ///
    /// Only an error that says that the descriptor is no listener ends it. Any other is of one
    /// connection, or passes ([accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html)).
    pub(super) fn after_failed_accept(&mut self, errno: i32) -> AfterFailure {
        match errno {
            libc::EINVAL if std::mem::take(&mut self.multishot) => AfterFailure::Again,
            // The last is a cancellation that nobody asked for: the thread of the ring has ended.
            libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EFAULT | libc::ECANCELED => {
                AfterFailure::End
            }
            // A pending error of a connection, or a socket of a kind that accepts nothing.
            libc::EOPNOTSUPP if !is_listening(self.fd.as_fd()) => AfterFailure::End,
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
            | libc::ECONNRESET
            | libc::ETIMEDOUT => AfterFailure::Again,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM; EPERM of a firewall; and what this list lacks.
            _ => AfterFailure::Later,
        }
    }

    /// Decides whether the socket goes on after an error of a receive.
    ///
    /// Returns `true` if the error was of one datagram, or if there is an older form of the
    /// operation for a kernel that does not know this one.
    pub(super) fn survives(&mut self, errno: i32) -> bool {
        match (self.source, errno) {
            (Source::Datagrams(_) | Source::Messages(_), errno) => {
                Status::Failed { errno }.is_pending_error_of(&*self.fd)
            }
            (_, libc::EINVAL) => std::mem::take(&mut self.multishot),
            _ => false,
        }
    }
}

/// Returns the number of a connection that bytes are recorded with: the socket's token, or else the
/// number of its entry.
#[inline]
pub(super) fn connection_number(token: u64, key: Key) -> u64 {
    if token != 0 { token } else { key.index().into() }
}

/// A connect that is under way.
pub(super) struct Connecting {
    /// The address, which the kernel may still have to read.
    #[expect(dead_code, reason = "the kernel reads it")]
    pub(super) address: Box<RawAddress>,
    /// The time when it is given up.
    pub(super) deadline: Option<Instant>,
    pub(super) timed_out: bool,
}

/// A completion whose bytes are being handed out, and whose status is to be acted on afterwards.
pub(crate) struct CurrentCompletion {
    pub(super) key: Key,
    pub(super) source: Source,
    pub(super) remaining: Remaining,
    pub(super) status: Status,
    /// The phase of the socket until this completion.
    pub(super) phase: Phase,
}

impl CurrentCompletion {
    #[inline]
    pub(super) fn next_event<B: FromSlot>(
        &mut self,
        id: SocketId,
        token: u64,
        ring: &mut BufferRing,
    ) -> Option<Event<B>> {
        match self.source {
            Source::Datagrams(_) | Source::Messages(_) => ring
                .take_datagram(&mut self.remaining)
                .map(|datagram| Event::Datagram { id, token, datagram }),
            _ => ring.take(&mut self.remaining).map(|bytes| Event::Received { id, token, bytes }),
        }
    }
}
