//! The datagram sockets that a pool takes, and one that tokio's reactor watches.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::net::{UdpSocket, UnixDatagram};

use super::socket::StreamError;
use crate::system::socket_type;
use crate::uring::is_of_ip;

/// A datagram socket that a pool takes: of tokio, of the standard library, or any descriptor of
/// one. The trait is sealed.
///
/// `OwnedFd` serves for other crates' types: `OwnedFd::from(socket)` of socket2, for example.
///
/// ```
/// use uring_arena::tokio::DatagramSocket;
///
/// fn can_be_taken<S: DatagramSocket>() {}
/// can_be_taken::<tokio::net::UdpSocket>();
/// can_be_taken::<tokio::net::UnixDatagram>();
/// can_be_taken::<std::net::UdpSocket>();
/// can_be_taken::<std::os::unix::net::UnixDatagram>();
/// can_be_taken::<std::os::fd::OwnedFd>();
/// ```
pub trait DatagramSocket: sealed::ConvertDatagrams {}

/// A datagram socket that the reactor of a runtime watches.
pub(super) enum WatchedDatagrams {
    Ip(UdpSocket),
    Unix(UnixDatagram),
}

/// Runs code on the socket, whatever its family.
macro_rules! with {
    ($watched:expr, $socket:ident => $code:expr) => {
        match $watched {
            WatchedDatagrams::Ip($socket) => $code,
            WatchedDatagrams::Unix($socket) => $code,
        }
    };
}

impl WatchedDatagrams {
    /// Waits until a datagram may be there. Takes part in the task's budget.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, socket => socket.poll_recv_ready(context))
    }

    /// Waits until the socket may take a datagram.
    pub(super) async fn writable(&self) -> io::Result<()> {
        with!(self, socket => socket.writable().await)
    }

    /// Runs `attempt`, unless the socket is known not to be ready.
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        attempt: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        with!(self, socket => socket.try_io(interest, || attempt(socket.as_fd())))
    }
}

impl AsFd for WatchedDatagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        with!(self, socket => socket.as_fd())
    }
}

/// Returns an address of an IP socket.
pub(super) fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    std::net::UdpSocket::from(socket.try_clone_to_owned()?).local_addr()
}

mod sealed {
    use super::*;

    pub trait ConvertDatagrams: Sized + AsFd {
        /// Has the current runtime watch the socket.
        #[doc(hidden)]
        fn into_watched(self) -> Result<WatchedDatagramSocket, StreamError<Self>>;

        /// Returns the descriptor, which no reactor watches any more.
        #[doc(hidden)]
        fn into_fd(self) -> Result<OwnedFd, StreamError<Self>>;
    }

    /// A watched socket, under a name that a public trait may have.
    #[allow(missing_debug_implementations, reason = "no program can name it")]
    pub struct WatchedDatagramSocket(pub(in crate::runtime::tokio) WatchedDatagrams);
}

pub(super) use sealed::{ConvertDatagrams, WatchedDatagramSocket};

/// Checks that a descriptor is a datagram socket: each of the types that are taken may hold another
/// one.
pub(super) fn check_type(socket: BorrowedFd<'_>) -> io::Result<()> {
    match socket_type(socket) {
        Some(libc::SOCK_DGRAM) => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is no datagram socket (SOCK_DGRAM): `datagrams` takes UDP and Unix datagram sockets, `stream` takes connections",
        )),
    }
}

/// Implements the trait for sockets of tokio.
macro_rules! of_tokio {
    ($($socket:ident, $family:ident);+) => {$(
        impl DatagramSocket for $socket {}

        impl ConvertDatagrams for $socket {
            fn into_watched(self) -> Result<WatchedDatagramSocket, StreamError<$socket>> {
                Ok(WatchedDatagramSocket(WatchedDatagrams::$family(self)))
            }

            fn into_fd(self) -> Result<OwnedFd, StreamError<$socket>> {
                self.into_std().map(OwnedFd::from).map_err(StreamError::without_socket)
            }
        }
    )+};
}

of_tokio!(UdpSocket, Ip; UnixDatagram, Unix);

/// Implements the trait for sockets of the standard library.
macro_rules! of_std {
    ($($socket:ty, $watched:ident, $family:ident);+) => {$(
        impl DatagramSocket for $socket {}

        impl ConvertDatagrams for $socket {
            fn into_watched(self) -> Result<WatchedDatagramSocket, StreamError<$socket>> {
                if let Err(error) = self.set_nonblocking(true) {
                    return Err(StreamError::new(error, self));
                }
                let watched = $watched::from_std(self).map_err(StreamError::without_socket)?;
                Ok(WatchedDatagramSocket(WatchedDatagrams::$family(watched)))
            }

            fn into_fd(self) -> Result<OwnedFd, StreamError<$socket>> {
                match self.set_nonblocking(true) {
                    Ok(()) => Ok(self.into()),
                    Err(error) => Err(StreamError::new(error, self)),
                }
            }
        }
    )+};
}

of_std!(std::net::UdpSocket, UdpSocket, Ip; std::os::unix::net::UnixDatagram, UnixDatagram, Unix);

/// Makes the refusal of a socket that of its descriptor.
fn as_fd_error<S: Into<OwnedFd>>(refused: StreamError<S>) -> StreamError<OwnedFd> {
    StreamError { error: refused.error, socket: refused.socket.map(Into::into) }
}

impl DatagramSocket for OwnedFd {}

impl ConvertDatagrams for OwnedFd {
    fn into_watched(self) -> Result<WatchedDatagramSocket, StreamError<OwnedFd>> {
        if is_of_ip(self.as_fd()) {
            std::net::UdpSocket::from(self).into_watched().map_err(as_fd_error)
        } else {
            std::os::unix::net::UnixDatagram::from(self).into_watched().map_err(as_fd_error)
        }
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<OwnedFd>> {
        // The calls made on it are the same for all families.
        let socket = std::net::UdpSocket::from(self);
        ConvertDatagrams::into_fd(socket).map_err(as_fd_error)
    }
}
