//! The sockets that a pool takes, and one that tokio's reactor watches.
//!
//! # Safety
//!
//! Unsafe here: having the kernel receive into the room of buffers, and counting the bytes as
//! written; and having it send bytes that are borrowed.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::net::{TcpStream, UnixStream};
use bytes::BufMut;
use bytes::buf::UninitSlice;

use crate::buffer::Buffer;
use crate::system::socket_type;

/// The most buffers that one call receives into.
pub(super) const BUFFERS_MAX: usize = 16;

/// A connected stream socket that a pool takes: of tokio, of the standard library, or any
/// descriptor of one. The trait is sealed.
///
/// `OwnedFd` serves for other crates' types: `OwnedFd::from(socket)` of socket2, for example.
///
/// ```
/// use uring_arena::tokio::Socket;
///
/// fn can_be_taken<S: Socket>() {}
/// can_be_taken::<tokio::net::TcpStream>();
/// can_be_taken::<tokio::net::UnixStream>();
/// can_be_taken::<std::net::TcpStream>();
/// can_be_taken::<std::os::unix::net::UnixStream>();
/// can_be_taken::<std::os::fd::OwnedFd>();
/// ```
pub trait Socket: sealed::Convert + AsFd {}

/// A socket that a pool did not take, and the reason.
///
/// ```
/// use std::net::TcpStream;
/// use uring_arena::tokio::StreamError;
///
/// fn later(refused: StreamError<TcpStream>, waiting: &mut Vec<TcpStream>) {
///     eprintln!("{refused}");
///     waiting.extend(refused.socket);
/// }
/// # let _ = later;
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct StreamError<S> {
    /// The reason.
    pub error: io::Error,
    /// The socket, as it was given. `None` if tokio failed to let go of it or to watch it.
    pub socket: Option<S>,
}

impl<S> StreamError<S> {
    pub(super) fn new(error: io::Error, socket: S) -> StreamError<S> {
        StreamError { error, socket: Some(socket) }
    }

    pub(super) fn without_socket(error: io::Error) -> StreamError<S> {
        StreamError { error, socket: None }
    }
}

impl<S> fmt::Debug for StreamError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S> From<StreamError<S>> for io::Error {
    /// Gives the reason. The socket is closed.
    fn from(refused: StreamError<S>) -> io::Error {
        refused.error
    }
}

/// A stream socket that the reactor of the current runtime watches.
pub(super) enum Watched {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Runs code on the socket, whatever its family.
macro_rules! with {
    ($watched:expr, $socket:ident => $code:expr) => {
        match $watched {
            Watched::Tcp($socket) => $code,
            Watched::Unix($socket) => $code,
        }
    };
}

/// Runs `attempt` on a socket that counts as ready. If it moves fewer bytes than there was room
/// for, the socket is empty, or full, and counts as not ready from then on: the next attempt waits
/// for the reactor in place of a call in vain. tokio's own reads and writes do the same.
macro_rules! attempt {
    ($socket:expr, $interest:expr, $room:expr, $attempt:expr) => {{
        let mut moved = None;
        let tried = $socket.try_io($interest, || {
            let bytes = $attempt?;
            moved = Some(bytes);
            if 0 < bytes && bytes < $room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (moved, tried) {
            (Some(bytes), tried) => {
                // The error made above, which owns nothing: its drop would be a call.
                std::mem::forget(tried);
                Ok(bytes)
            }
            (None, Err(error)) => Err(error),
            (None, Ok(())) => unreachable!("an attempt that succeeds says how many bytes it moved"),
        }
    }};
}

impl Watched {
    /// Waits until the socket may have bytes. Takes part in the task's budget.
    #[inline]
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, socket => socket.poll_read_ready(context))
    }

    /// Waits until the socket may take bytes.
    #[inline]
    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, socket => socket.poll_write_ready(context))
    }

    /// Receives into the room of `buffer`. Never waits.
    #[inline]
    pub(super) fn read_into(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let room = buffer.chunk_mut();
        let len = room.len();
        let bytes = with!(self, socket => {
            attempt!(socket, Interest::READABLE, len, receive_once(socket.as_fd(), room))
        })?;
        // SAFETY: the kernel wrote `bytes` bytes at the start of the room.
        unsafe { buffer.advance_mut(bytes) };
        Ok(bytes)
    }

    /// Receives into the room of several buffers, the first ones first. Never waits.
    pub(super) fn read_into_all(&self, buffers: &mut [Buffer]) -> io::Result<usize> {
        let room = buffers.iter().map(|buffer| buffer.capacity() - buffer.len()).sum::<usize>();
        let bytes = with!(self, socket => {
            attempt!(socket, Interest::READABLE, room, receive(socket.as_fd(), buffers))
        })?;
        let mut left = bytes;
        for buffer in buffers {
            let written = left.min(buffer.capacity() - buffer.len());
            let len = buffer.len() + written;
            // SAFETY: the kernel wrote `bytes` bytes, and filled each buffer before the next one.
            unsafe { buffer.set_len(len) };
            left -= written;
        }
        Ok(bytes)
    }

    /// Sends some of `bytes`. Never waits.
    #[inline]
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        with!(self, socket => {
            attempt!(socket, Interest::WRITABLE, bytes.len(), send_once(socket.as_fd(), bytes))
        })
    }

    /// Sends some of `pieces`. Never waits.
    pub(super) fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        with!(self, socket => {
            attempt!(socket, Interest::WRITABLE, len, socket.try_write_vectored(pieces))
        })
    }

    /// Returns the descriptor, which tokio does not watch any more.
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        with!(self, socket => socket.into_std().map(OwnedFd::from))
    }
}

/// A send on a connection that is broken gives no signal.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
/// The option `SO_NOSIGPIPE`, which the standard library sets, says so.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: libc::c_int = 0;

/// Receives once. tokio's own calls ask its reactor twice: here and in `try_io`.
#[inline]
fn receive_once(socket: BorrowedFd<'_>, room: &mut UninitSlice) -> io::Result<usize> {
    // SAFETY: the room is borrowed mutably, and live during the call.
    let answer = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Sends once, as `receive_once` receives.
#[inline]
fn send_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let answer =
        // SAFETY: the bytes are borrowed, and live during the call.
        unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), NO_SIGNAL) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Receives once into the room of several buffers.
fn receive(socket: BorrowedFd<'_>, buffers: &mut [Buffer]) -> io::Result<usize> {
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut rooms = [none; BUFFERS_MAX];
    let count = buffers.len().min(BUFFERS_MAX);
    for (room, buffer) in rooms.iter_mut().zip(buffers) {
        let spare = buffer.spare_capacity_mut();
        *room = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
    }
    // SAFETY: the ranges are rooms of buffers that are borrowed mutably, and live during the call.
    let answer = unsafe { libc::readv(socket.as_raw_fd(), rooms.as_ptr(), count as libc::c_int) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

impl AsFd for Watched {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        with!(self, socket => socket.as_fd())
    }
}

/// The socket of a connection, as its sending side has it.
pub(super) enum Link {
    /// A descriptor of its own, of whatever family: the calls made on it are the same for all.
    Own(std::net::TcpStream),
    /// The socket itself, which the reactor watches in both directions.
    Watched(Watched),
}

impl Link {
    pub(super) fn own(socket: OwnedFd) -> Link {
        Link::Own(socket.into())
    }
}

impl AsFd for Link {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Own(socket) => socket.as_fd(),
            Link::Watched(socket) => socket.as_fd(),
        }
    }
}

/// Asks a question that needs a socket of the standard library.
fn with_std<T>(
    socket: BorrowedFd<'_>,
    question: impl FnOnce(&std::net::TcpStream) -> io::Result<T>,
) -> io::Result<T> {
    question(&std::net::TcpStream::from(socket.try_clone_to_owned()?))
}

/// Returns an address of a TCP socket.
pub(super) fn address_by(
    socket: BorrowedFd<'_>,
    question: impl FnOnce(&std::net::TcpStream) -> io::Result<SocketAddr>,
) -> io::Result<SocketAddr> {
    with_std(socket, question)
}

/// Sets `TCP_NODELAY`.
pub(super) fn set_no_delay(socket: BorrowedFd<'_>, yes: bool) -> io::Result<()> {
    with_std(socket, |socket| socket.set_nodelay(yes))
}

mod sealed {
    use super::*;

    pub trait Convert: Sized {
        /// Has the current runtime watch the socket.
        #[doc(hidden)]
        fn into_watched(self) -> Result<WatchedSocket, StreamError<Self>>;

        /// Returns the descriptor, which no reactor watches any more.
        #[doc(hidden)]
        fn into_fd(self) -> Result<OwnedFd, StreamError<Self>>;
    }

    /// A watched socket, under a name that a public trait may have.
    #[allow(missing_debug_implementations, reason = "no program can name it")]
    pub struct WatchedSocket(pub(in crate::runtime::tokio) Watched);
}

pub(super) use sealed::{Convert, WatchedSocket};

fn lost<S>(error: io::Error) -> StreamError<S> {
    StreamError::without_socket(error)
}

impl Socket for TcpStream {}

impl Convert for TcpStream {
    fn into_watched(self) -> Result<WatchedSocket, StreamError<TcpStream>> {
        Ok(WatchedSocket(Watched::Tcp(self)))
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<TcpStream>> {
        self.into_std().map(OwnedFd::from).map_err(lost)
    }
}

impl Socket for UnixStream {}

impl Convert for UnixStream {
    fn into_watched(self) -> Result<WatchedSocket, StreamError<UnixStream>> {
        Ok(WatchedSocket(Watched::Unix(self)))
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<UnixStream>> {
        self.into_std().map(OwnedFd::from).map_err(lost)
    }
}

impl Socket for std::net::TcpStream {}

impl Convert for std::net::TcpStream {
    fn into_watched(self) -> Result<WatchedSocket, StreamError<std::net::TcpStream>> {
        if let Err(error) = self.set_nonblocking(true) {
            return Err(StreamError::new(error, self));
        }
        let watched = TcpStream::from_std(self).map_err(lost)?;
        Ok(WatchedSocket(Watched::Tcp(watched)))
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<std::net::TcpStream>> {
        match self.set_nonblocking(true) {
            Ok(()) => Ok(self.into()),
            Err(error) => Err(StreamError::new(error, self)),
        }
    }
}

impl Socket for std::os::unix::net::UnixStream {}

impl Convert for std::os::unix::net::UnixStream {
    fn into_watched(self) -> Result<WatchedSocket, StreamError<std::os::unix::net::UnixStream>> {
        if let Err(error) = self.set_nonblocking(true) {
            return Err(StreamError::new(error, self));
        }
        let watched = UnixStream::from_std(self).map_err(lost)?;
        Ok(WatchedSocket(Watched::Unix(watched)))
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<std::os::unix::net::UnixStream>> {
        match self.set_nonblocking(true) {
            Ok(()) => Ok(self.into()),
            Err(error) => Err(StreamError::new(error, self)),
        }
    }
}

/// A connected stream socket behind a descriptor.
enum Known {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Finds out the family of a descriptor's socket, if it is a stream.
fn known(socket: OwnedFd) -> Result<Known, StreamError<OwnedFd>> {
    match socket_type(socket.as_fd()) {
        Some(libc::SOCK_STREAM) => {}
        _ => {
            let text = "the descriptor is no stream socket (SOCK_STREAM): a pool's stream takes TCP and Unix streams";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(StreamError::new(error, socket));
        }
    }
    let tcp = std::net::TcpStream::from(socket);
    Ok(match tcp.local_addr() {
        Ok(_) => Known::Tcp(tcp),
        // Of a family without ports.
        Err(_) => Known::Unix(OwnedFd::from(tcp).into()),
    })
}

/// Makes the refusal of a socket that of its descriptor.
fn as_fd_error<S: Into<OwnedFd>>(refused: StreamError<S>) -> StreamError<OwnedFd> {
    StreamError { error: refused.error, socket: refused.socket.map(Into::into) }
}

impl Socket for OwnedFd {}

impl Convert for OwnedFd {
    fn into_watched(self) -> Result<WatchedSocket, StreamError<OwnedFd>> {
        match known(self)? {
            Known::Tcp(socket) => socket.into_watched().map_err(as_fd_error),
            Known::Unix(socket) => socket.into_watched().map_err(as_fd_error),
        }
    }

    fn into_fd(self) -> Result<OwnedFd, StreamError<OwnedFd>> {
        match known(self)? {
            Known::Tcp(socket) => Convert::into_fd(socket).map_err(as_fd_error),
            Known::Unix(socket) => Convert::into_fd(socket).map_err(as_fd_error),
        }
    }
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(super) mod datagram {
    //! The datagram sockets that a pool takes, and one that tokio's reactor watches.

    use std::io;
    use std::net::SocketAddr;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::task::{Context, Poll};

    use ::tokio::io::Interest;
    use ::tokio::net::{UdpSocket, UnixDatagram};

    use super::StreamError;
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
    pub(in crate::runtime::tokio) enum WatchedDatagrams {
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
        pub(in crate::runtime::tokio) fn poll_read_ready(
            &self,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            with!(self, socket => socket.poll_recv_ready(context))
        }

        /// Waits until the socket may take a datagram.
        pub(in crate::runtime::tokio) async fn writable(&self) -> io::Result<()> {
            with!(self, socket => socket.writable().await)
        }

        /// Runs `attempt`, unless the socket is known not to be ready.
        pub(in crate::runtime::tokio) fn try_io<T>(
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
    pub(in crate::runtime::tokio) fn local_address(
        socket: BorrowedFd<'_>,
    ) -> io::Result<SocketAddr> {
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

    pub(in crate::runtime::tokio) use sealed::{ConvertDatagrams, WatchedDatagramSocket};

    /// Checks that a descriptor is a datagram socket: each of the types that are taken may hold
    /// another one.
    pub(in crate::runtime::tokio) fn check_type(socket: BorrowedFd<'_>) -> io::Result<()> {
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

    of_std!(
        std::net::UdpSocket, UdpSocket, Ip;
        std::os::unix::net::UnixDatagram, UnixDatagram, Unix
    );

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
}
