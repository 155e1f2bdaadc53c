//! The sockets of tokio that a pool takes.

use std::io;
use std::os::fd::OwnedFd;

use ::tokio::net::{TcpStream, UnixStream};

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
