//! The sockets of tokio that a pool takes, and what a pool does to a connection at its end.
//!
//! # Safety
//!
//! Unsafe here: calls of the C library for a reset, which the standard library does not offer. Each
//! one reads or writes a value of ours, of the length that it is told.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ::tokio::net::{TcpStream, UnixStream};

/// The time after which a peer that takes nothing loses the rest of a connection that nobody
/// watches any more, in milliseconds.
const STANDSTILL_MS: libc::c_uint = 60_000;

/// A socket of tokio that a pool receives from: [`TcpStream`] or [`UnixStream`]. The trait is
/// sealed.
///
/// ```
/// use uring_arena::tokio::Socket;
///
/// fn can_be_received_from<S: Socket>() {}
/// can_be_received_from::<tokio::net::TcpStream>();
/// can_be_received_from::<tokio::net::UnixStream>();
/// ```
pub trait Socket: sealed::IntoFd {}

pub(super) mod sealed {
    use std::io;
    use std::os::fd::OwnedFd;

    pub trait IntoFd {
        /// Returns the descriptor, which tokio does not watch any more.
        fn into_fd(self) -> io::Result<OwnedFd>;
    }
}

impl Socket for TcpStream {}

impl sealed::IntoFd for TcpStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

impl Socket for UnixStream {}

impl sealed::IntoFd for UnixStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

/// Resets a TCP connection, whatever is queued in the kernel and however many descriptors it has. A
/// connection of another family is shut down in both directions: it knows no reset.
pub(super) fn reset(socket: BorrowedFd<'_>) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as _, sa_data: [0; 14] };
    let len = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: reads `nowhere`, of that length.
    let answer = unsafe { libc::connect(socket.as_raw_fd(), &nowhere, len) };
    if answer == 0 {
        return;
    }
    // Refused: by another family, or beside a call that waits on the socket. The last close resets.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    // SAFETY: refers to no memory.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Has the kernel end a TCP connection whose peer takes nothing for a minute, unless the program
/// has set such a time itself ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)).
pub(super) fn limit_standstill(socket: BorrowedFd<'_>) {
    let mut known: libc::c_uint = 0;
    let mut len = size_of_val(&known) as libc::socklen_t;
    // SAFETY: writes `known`, of that length, and its length.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw mut known).cast(),
            &mut len,
        )
    };
    if answer == 0 && known == 0 {
        let _ = set_option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &STANDSTILL_MS);
    }
}

fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: reads `value`, of that length.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), len)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
