//! The questions to a socket, and the calls on one, that the standard library does not offer.
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
