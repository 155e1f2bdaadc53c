//! The questions to a socket, and the calls on one, that the standard library does not offer; and
//! the options of a send.
//!
//! # Safety
//!
//! Unsafe here: the system calls. Each function gives the kernel only memory that is live during
//! the call.
#![allow(unsafe_code)]
// Each feature uses some of them.
#![cfg_attr(
    not(all(feature = "io-uring", feature = "tokio", target_os = "linux")),
    allow(dead_code)
)]

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the type of a socket (`SO_TYPE`), such as `SOCK_STREAM`, or `None` of anything else.
pub(crate) fn socket_type(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    socket_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 0)
}

/// Disconnects a socket (connect(2) to `AF_UNSPEC`), which resets a TCP connection.
///
/// Returns `false` if its protocol does not know that, or a call waits on the socket.
pub(crate) fn disconnect(socket: BorrowedFd<'_>) -> bool {
    // SAFETY: a structure of numbers. Its family is zero: `AF_UNSPEC`.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let bytes = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the address is live during the call.
    unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, bytes) == 0 }
}

/// Reads an option of a socket into `value`, or its first bytes, or returns `None`.
pub(crate) fn socket_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    mut value: T,
) -> Option<T> {
    let mut bytes = size_of::<T>() as libc::socklen_t;
    let to = (&raw mut value).cast();
    // SAFETY: value and length are live during the call, and the options read here are of plain
    // numbers.
    let answer = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut bytes) };
    (answer == 0).then_some(value)
}

pub(crate) fn set_linger(socket: BorrowedFd<'_>, linger: libc::linger) {
    // The option exists on every socket.
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
}

/// Sets an option of plain numbers. Returns 0, or -1 with the error in `errno`.
pub(crate) fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> libc::c_int {
    let (from, bytes) = ((&raw const *value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: reads `value`, of that length.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, from, bytes) }
}

/// Turns the answer of a system call into a result.
pub(crate) fn to_result(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Shuts one or both directions of a socket down: the sending one behind what was sent.
pub(crate) fn shut_down(socket: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: refers to no memory.
    to_result(unsafe { libc::shutdown(socket.as_raw_fd(), how) }).map(drop)
}

/// The time after which a peer that takes nothing loses the rest of a connection that nobody
/// watches any more, in milliseconds.
#[cfg(target_os = "linux")]
const STANDSTILL_MS: libc::c_uint = 60_000;

/// Resets a TCP connection, whatever is queued in the kernel and however many descriptors it has. A
/// connection of another family is shut down in both directions: it knows no reset.
///
/// Returns whether the peer sees a reset now.
pub(crate) fn reset_or_shut_down(socket: BorrowedFd<'_>) -> bool {
    if disconnect(socket) {
        return true;
    }
    // Refused: by another family, or beside a call that waits on the socket. The last close resets.
    set_linger(socket, libc::linger { l_onoff: 1, l_linger: 0 });
    // The peer may be gone already.
    let _ = shut_down(socket, Shutdown::Both);
    false
}

/// Returns whether a TCP connection is closed: it was reset, or both sides have sent their end.
/// Returns `false` on other systems than Linux.
pub(crate) fn is_tcp_closed(socket: BorrowedFd<'_>) -> bool {
    /// `TCP_CLOSE` of the kernel's `tcp_states.h`.
    #[cfg(target_os = "linux")]
    const CLOSED: u8 = 7;

    #[cfg(target_os = "linux")]
    {
        // The first byte of `tcp_info` is the state.
        socket_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, 0_u8) == Some(CLOSED)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        false
    }
}

/// Returns the bytes that a TCP socket may not send yet, for example because the peer does not
/// read. Returns `None` of any other socket.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) fn unsent_bytes(socket: BorrowedFd<'_>) -> Option<usize> {
    /// The request `SIOCOUTQNSD` (tcp(7) has its sibling `SIOCOUTQ`).
    const UNSENT_BYTES: libc::Ioctl = 0x894B;

    queue_bytes(socket, UNSENT_BYTES)
}

/// Returns the [unsent bytes](unsent_bytes) of a TCP socket, and those that it has sent and the
/// peer has not acknowledged. Returns `None` of any other socket.
#[cfg(all(feature = "io-uring", feature = "tokio", target_os = "linux"))]
pub(crate) fn queued_bytes(socket: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let unsent = unsent_bytes(socket)?;
    // All of them (`SIOCOUTQ`).
    let queued = queue_bytes(socket, libc::TIOCOUTQ)?;
    Some((unsent, queued.saturating_sub(unsent)))
}

/// Asks for a number of bytes of a socket's queue.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn queue_bytes(socket: BorrowedFd<'_>, request: libc::Ioctl) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: either request writes one number, which is live during the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if answer < 0 { None } else { usize::try_from(bytes).ok() }
}

/// Has the kernel end a TCP connection whose peer takes nothing for a minute, unless the program
/// has set such a time itself ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)). Does
/// nothing on other systems than Linux.
pub(crate) fn limit_standstill(socket: BorrowedFd<'_>) {
    #[cfg(target_os = "linux")]
    {
        let none: libc::c_uint = 0;
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
        if socket_option(socket, level, name, none) == Some(none) {
            set_option(socket, level, name, &STANDSTILL_MS);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// The options of a send.
///
/// ```
/// use uring_arena::SendOptions;
///
/// let always = SendOptions::new().zero_copy_from(1);
/// let never = SendOptions::new().zero_copy_from(usize::MAX);
/// # let _ = (always, never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    zero_copy_from: usize,
    /// The threshold is the default: where the kernel copies in any case, none is zero-copy.
    is_adaptive: bool,
    /// The flags of the call that are not of each.
    flags: i32,
}

/// The flag that announces more bytes, where the system has one.
#[cfg(target_os = "linux")]
const MORE: libc::c_int = libc::MSG_MORE;
#[cfg(not(target_os = "linux"))]
const MORE: libc::c_int = 0;

impl SendOptions {
    /// Returns the default options: zero-copy from [`ZERO_COPY_FROM`](Self::ZERO_COPY_FROM) bytes
    /// on, where it saves a copy.
    ///
    /// The kernel may report that it copied a zero-copy send (Linux 6.2). A driver then makes the
    /// next thousand on that socket ordinary ones, and tries again.
    pub fn new() -> SendOptions {
        let zero_copy_from = SendOptions::ZERO_COPY_FROM;
        SendOptions { zero_copy_from, is_adaptive: true, flags: 0 }
    }

    /// The default threshold in bytes. A shorter zero-copy send costs more than the copy that it
    /// saves: the kernel counts pages and sends a notification. The memory stays in use until the
    /// peer has acknowledged the bytes.
    ///
    /// Measured (`benches/peers`, Linux 6.18) a zero-copy send costs 1.1 µs and 0.06 µs a KiB.
    /// Copying 10 to 20 KiB at 5 to 10 GB/s takes as long. **Loopback always copies**, so there a
    /// zero-copy send only costs: 1.12 times the processor time of an ordinary one at 4 KiB, 1.36
    /// times at 64 KiB. A driver learns that with the first one. Elsewhere set the threshold to
    /// `usize::MAX` to send to the same machine. The `copied` of
    /// [`Progress::Done`](crate::Progress::Done) says whether the kernel copied.
    ///
    /// The kernel joins the notifications of sends that share a packet (Linux 6.10). Of sends that
    /// follow one another closely, all come with the acknowledgment of the last one.
    pub const ZERO_COPY_FROM: usize = 16 << 10;

    /// Makes sends of this many bytes and more zero-copy, if kernel and registration allow it, and
    /// whether or not it saves a copy.
    ///
    /// ```
    /// use uring_arena::SendOptions;
    ///
    /// let from_a_page_on = SendOptions::new().zero_copy_from(4096);
    /// assert_ne!(from_a_page_on, SendOptions::new());
    /// ```
    #[must_use]
    pub fn zero_copy_from(mut self, bytes: usize) -> SendOptions {
        self.zero_copy_from = bytes;
        self.is_adaptive = false;
        self
    }

    /// Makes the send an ordinary one.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn copied(self) -> SendOptions {
        self.zero_copy_from(usize::MAX)
    }

    /// Returns whether the driver decides where zero-copy saves a copy.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn is_adaptive(self) -> bool {
        self.is_adaptive
    }

    /// Completes the send only when all bytes are sent, or the connection fails (`MSG_WAITALL`).
    /// Otherwise a send may be short.
    ///
    /// A send that was cancelled, or that failed after a part, completes with the bytes that went
    /// out, and no error. So a short one of a stream socket has torn the stream: its rest goes
    /// next, or nothing does. One entry sends 1 GiB at most. Sockets with kernel TLS refuse the
    /// flag (`EOPNOTSUPP`).
    ///
    /// ```
    /// let options = uring_arena::SendOptions::new().wait_all();
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn wait_all(mut self) -> SendOptions {
        self.flags |= libc::MSG_WAITALL;
        self
    }

    /// Announces that more bytes follow at once: the kernel may hold a partial segment back
    /// (`MSG_MORE`). Systems without that send at once.
    ///
    /// ```
    /// let head_of_a_message = uring_arena::SendOptions::new().more_to_come();
    /// # let _ = head_of_a_message;
    /// ```
    #[must_use]
    pub fn more_to_come(mut self) -> SendOptions {
        self.flags |= MORE;
        self
    }

    /// Lets the send be short, for sockets that refuse `MSG_WAITALL`.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn in_parts(mut self) -> SendOptions {
        self.flags &= !libc::MSG_WAITALL;
        self
    }

    /// Has the send fail in place of waiting in the kernel (`EAGAIN`).
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn at_once(mut self) -> SendOptions {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }

    /// Returns whether a send of so many bytes is to be zero-copy.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn asks_for_zero_copy(self, bytes: usize) -> bool {
        bytes >= self.zero_copy_from
    }

    /// Returns the flags of the call that are not of each.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn further_flags(self) -> i32 {
        self.flags
    }
}

impl Default for SendOptions {
    fn default() -> SendOptions {
        SendOptions::new()
    }
}
