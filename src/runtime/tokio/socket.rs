//! The sockets of tokio that a pool takes, and the standard library's behind them.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

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
pub trait Socket: sealed::IntoStdSocket {}

impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// A socket that tokio does not watch any more.
#[allow(missing_debug_implementations, reason = "no user can name it")]
pub enum StdSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

pub(super) mod sealed {
    use super::{StdSocket, io};

    pub trait IntoStdSocket {
        fn into_std_socket(self) -> io::Result<StdSocket>;
    }
}

impl sealed::IntoStdSocket for TcpStream {
    fn into_std_socket(self) -> io::Result<StdSocket> {
        self.into_std().map(StdSocket::Tcp)
    }
}

impl sealed::IntoStdSocket for UnixStream {
    fn into_std_socket(self) -> io::Result<StdSocket> {
        self.into_std().map(StdSocket::Unix)
    }
}

impl StdSocket {
    pub(super) fn try_clone(&self) -> io::Result<StdSocket> {
        match self {
            StdSocket::Tcp(stream) => stream.try_clone().map(StdSocket::Tcp),
            StdSocket::Unix(stream) => stream.try_clone().map(StdSocket::Unix),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            StdSocket::Tcp(stream) => (&*stream).write(bytes),
            StdSocket::Unix(stream) => (&*stream).write(bytes),
        }
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            StdSocket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            StdSocket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsRawFd for StdSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            StdSocket::Tcp(stream) => stream.as_raw_fd(),
            StdSocket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl From<StdSocket> for OwnedFd {
    fn from(plain: StdSocket) -> OwnedFd {
        match plain {
            StdSocket::Tcp(stream) => stream.into(),
            StdSocket::Unix(stream) => stream.into(),
        }
    }
}
