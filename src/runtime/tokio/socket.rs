//! Sockets of tokio, and of the standard library behind them.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ::tokio::net::{TcpStream, UnixStream};

/// Streams of tokio that a pool receives from: [`TcpStream`] and [`UnixStream`]. Nobody else
/// implements it.
pub trait Socket: sealed::IntoPlain {}

impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// A socket that tokio does not know any more.
#[allow(missing_debug_implementations)] // nobody outside can name it
pub enum Plain {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

pub(super) mod sealed {
    use super::{Plain, io};

    pub trait IntoPlain {
        fn into_plain(self) -> io::Result<Plain>;
    }
}

impl sealed::IntoPlain for TcpStream {
    fn into_plain(self) -> io::Result<Plain> {
        self.into_std().map(Plain::Tcp)
    }
}

impl sealed::IntoPlain for UnixStream {
    fn into_plain(self) -> io::Result<Plain> {
        self.into_std().map(Plain::Unix)
    }
}

impl Plain {
    pub(super) fn try_clone(&self) -> io::Result<Plain> {
        match self {
            Plain::Tcp(stream) => stream.try_clone().map(Plain::Tcp),
            Plain::Unix(stream) => stream.try_clone().map(Plain::Unix),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Plain::Tcp(stream) => (&*stream).write(bytes),
            Plain::Unix(stream) => (&*stream).write(bytes),
        }
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Plain::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Plain::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsRawFd for Plain {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Plain::Tcp(stream) => stream.as_raw_fd(),
            Plain::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl From<Plain> for OwnedFd {
    fn from(plain: Plain) -> OwnedFd {
        match plain {
            Plain::Tcp(stream) => stream.into(),
            Plain::Unix(stream) => stream.into(),
        }
    }
}
