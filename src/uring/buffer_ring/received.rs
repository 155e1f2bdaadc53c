//! The result of a completion of a receive: the bytes that came, and the status of the receive.
//!
//! # Safety
//!
//! Unsafe here: a message header with null pointers that all threads share.
#![allow(unsafe_code)]

use crate::buffer::ArenaBytes;
use crate::lease::CopyCharge;
use crate::uring::kernel::{error_was_pending, is_at_end, socket_type};
use bytes::Buf;
use bytes::Bytes;
use io_uring::cqueue;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;
use std::vec;

/// The result of one completion of a receive: an iterator over its messages, and a [`Status`].
///
/// Most completions bring one item, which may lie in several adjacent slots. A bundle brings one
/// for each part of it that lies in slots side by side. The result owns its items and does not
/// borrow the ring. An item that is not taken is dropped, and its slot is free again.
///
/// ```no_run
/// use uring_arena::{ArenaBytes, BufferRing, Status};
///
/// # fn on_completion(ring: &mut BufferRing, completion: &io_uring::cqueue::Entry) {
/// // SAFETY: a completion of a receive of this ring, handed in once.
/// let mut received = unsafe { ring.complete::<ArenaBytes>(completion) };
/// match (received.next(), received.status()) {
///     (Some(bytes), _) => println!("{} bytes, {} slots ready", bytes.len(), ring.refill()),
///     (None, Status::Starved) => println!("no slot was ready; now {}", ring.refill()),
///     (None, status) => println!("{status}"),
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "bytes that are not taken are dropped"]
pub struct Received<T = ArenaBytes> {
    first: Option<T>,
    rest: vec::IntoIter<T>,
    status: Status,
}

impl<T> Received<T> {
    #[inline]
    pub(super) fn new(first: Option<T>, rest: Vec<T>, status: Status) -> Received<T> {
        Received { first, rest: rest.into_iter(), status }
    }

    /// Returns the status of the receive after this completion.
    ///
    /// The example of [`Received`] shows it.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl<T> Iterator for Received<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.first.take().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::from(self.first.is_some()) + self.rest.len();
        (count, Some(count))
    }
}

impl<T> ExactSizeIterator for Received<T> {}

/// The status of a receive after one of its completions.
///
/// ```
/// use uring_arena::Status;
///
/// assert_eq!(Status::Starved.to_string(), "starved");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The receive is still armed: more completions will come.
    Armed,
    /// The receive ended without an error, as a multishot may at any time: arm it again.
    Ended,
    /// The receive ended because no slot lay ready (`ENOBUFS`). Arm it again after slots have been
    /// freed and published: before that it would only end again.
    Starved,
    /// The peer has sent all that it will.
    Finished,
    /// The receive was cancelled on request.
    Cancelled,
    /// The receive failed.
    Failed {
        /// The error number.
        errno: i32,
    },
}

impl Status {
    /// Returns whether a receive of datagrams from `socket` failed by a pending error, which is
    /// gone now: arm the receive again.
    ///
    /// An ICMP message that says that one datagram did not arrive fails the next receive of a
    /// connected socket, and nothing else. Anybody who knows the ports can send it. The kernel is
    /// asked for the next datagram to tell such an error from one that stays.
    ///
    /// ```no_run
    /// # use io_uring::cqueue::Entry;
    /// # use std::net::UdpSocket;
    /// # use uring_arena::{ArenaBytes, BufferRing, Status};
    /// # fn on_completion(ring: &mut BufferRing, socket: &UdpSocket, completion: &Entry) {
    /// // SAFETY: a completion of a receive of this ring, handed in once.
    /// let received = unsafe { ring.complete_datagram::<ArenaBytes>(completion) };
    /// match received.status() {
    ///     Status::Armed => {}
    ///     Status::Ended | Status::Starved => println!("arm it again"),
    ///     status if status.is_pending_error_of(socket) => println!("arm it again"),
    ///     status => println!("{status}"),
    /// }
    /// # }
    /// ```
    pub fn is_pending_error_of(self, socket: &impl AsFd) -> bool {
        match self {
            Status::Failed {
                errno: libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EFAULT,
            } => false,
            Status::Failed { .. } => error_was_pending(socket.as_fd()),
            _ => false,
        }
    }

    #[inline]
    pub(super) fn new(result: i32, flags: u32) -> Status {
        match result {
            // Even without a buffer: an old kernel announces a retry in this way.
            _ if cqueue::more(flags) => Status::Armed,
            1.. => Status::Ended,
            0 => Status::Finished,
            // Saturating: a forged completion may carry any number.
            _ => Status::from_errno(result.saturating_neg()),
        }
    }

    #[cold]
    fn from_errno(errno: i32) -> Status {
        match errno {
            libc::ENOBUFS => Status::Starved,
            libc::ECANCELED => Status::Cancelled,
            // The kernel maps its restarts to EINTR.
            libc::EINTR => Status::Ended,
            errno => Status::Failed { errno },
        }
    }
}

/// Writes the status as one word; of a failure, the text of the error as well.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Armed => "armed",
            Status::Ended => "ended",
            Status::Starved => "starved",
            Status::Finished => "finished",
            Status::Cancelled => "cancelled",
            Status::Failed { errno } => {
                return write!(f, "failed: {}", std::io::Error::from_raw_os_error(*errno));
            }
        })
    }
}

/// A form in which received bytes are handed out: [`Bytes`], which every library takes, or
/// [`ArenaBytes`], which allocates nothing.
///
/// The trait is sealed: these two are all its implementations.
pub trait FromSlot: sealed::Sealed + Sized {
    /// Takes the bytes in the slot that they arrived in.
    #[doc(hidden)]
    fn in_slot(bytes: ArenaBytes) -> Self;

    /// Takes bytes as [`in_slot`](Self::in_slot) does, on the fast path: there are some.
    #[doc(hidden)]
    fn arrived(bytes: ArenaBytes) -> Self;

    /// Copies the bytes to the heap, so that the slot is free at once.
    #[doc(hidden)]
    fn copied(bytes: &[u8], charge: CopyCharge) -> Self;
}

impl FromSlot for Bytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> Bytes {
        bytes.into()
    }

    #[inline]
    fn arrived(bytes: ArenaBytes) -> Bytes {
        Bytes::from_owner(Arrived(bytes))
    }

    fn copied(bytes: &[u8], charge: CopyCharge) -> Bytes {
        Bytes::from_owner(Copied { bytes: bytes.into(), _charge: charge })
    }
}

impl FromSlot for ArenaBytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> ArenaBytes {
        bytes
    }

    #[inline]
    fn arrived(bytes: ArenaBytes) -> ArenaBytes {
        bytes
    }

    fn copied(bytes: &[u8], charge: CopyCharge) -> ArenaBytes {
        ArenaBytes::copied(bytes, charge)
    }
}

/// The owner of a copy behind `Bytes`.
struct Copied {
    bytes: Box<[u8]>,
    _charge: CopyCharge,
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The owner of bytes from the fast path. A type of its own, used in one place, has
/// [`Bytes::from_owner`] inlined there however the crate is cut into units.
struct Arrived(ArenaBytes);

impl AsRef<[u8]> for Arrived {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bytes::Bytes {}
    impl Sealed for crate::buffer::ArenaBytes {}
}

/// Bytes of the lengths in front (`struct io_uring_recvmsg_out`).
const LENGTHS_BYTES: usize = 16;

/// Bytes of the sender's address. An IPv6 address is the longest that is read.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// Bytes of a slot that are not the datagram's.
pub(crate) const DATAGRAM_HEADER_BYTES: usize = LENGTHS_BYTES + NAME_BYTES;

/// One datagram, with the address of its sender.
///
/// ```no_run
/// # use std::os::fd::AsRawFd;
/// # use io_uring::{IoUring, types::Fd};
/// # use uring_arena::BufferRing;
/// # use std::net::UdpSocket;
/// # type Result = std::io::Result<()>;
/// # fn receive(uring: &mut IoUring, ring: &mut BufferRing, socket: &UdpSocket) -> Result {
/// let entry = ring.receive_datagrams(Fd(socket.as_raw_fd()));
/// // SAFETY: the socket outlives the receive, and the ring's slots are the ring's.
/// unsafe { uring.submission().push(&entry) }.unwrap();
/// uring.submit_and_wait(1)?;
/// for completion in uring.completion() {
///     // SAFETY: a completion of a receive of this ring, handed in once.
///     for datagram in unsafe { ring.complete_datagram::<bytes::Bytes>(&completion) } {
///         println!("{:?} sent {} bytes", datagram.from, datagram.bytes.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Datagram<B> {
    /// The sender's address, or `None` if it is no IP address.
    pub from: Option<SocketAddr>,
    /// The datagram's bytes. May be empty.
    pub bytes: B,
    /// True if the datagram was longer than the slot has room for: its end is lost.
    pub is_truncated: bool,
    /// The kernel has written no byte and no sender, nor said that a message ends here (`MSG_EOR`).
    pub(super) is_void: bool,
}

impl<B> Datagram<B> {
    /// Returns whether this is no message but the end of `socket`, from which it came: a connection
    /// (`SOCK_SEQPACKET`, `SOCK_STREAM`) whose peer sends no more.
    ///
    /// The kernel completes a receive at such an end as if an empty datagram had come. Do not arm
    /// the receive again then: it would complete at once, for ever. A
    /// [`Driver`](crate::Driver) does this by itself.
    ///
    /// An empty message that nothing follows before the end looks the same and is taken for the
    /// end. It is told from it if its sender has an address, or if this kind of socket marks the
    /// ends of messages (`MSG_EOR`; Unix sockets do not). Each other empty message is told from the
    /// end by what the socket says when this is called.
    ///
    /// ```no_run
    /// # use io_uring::cqueue::Entry;
    /// # use std::os::fd::OwnedFd;
    /// # use uring_arena::{ArenaBytes, BufferRing};
    /// # fn on_completion(ring: &mut BufferRing, socket: &OwnedFd, completion: &Entry) {
    /// // SAFETY: a completion of a receive of this ring, handed in once.
    /// for datagram in unsafe { ring.complete_datagram::<ArenaBytes>(completion) } {
    ///     if datagram.is_end_of(socket) {
    ///         println!("the peer has finished");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn is_end_of(&self, socket: &impl AsFd) -> bool {
        let socket = socket.as_fd();
        let has_end = |kind| matches!(kind, Some(libc::SOCK_STREAM | libc::SOCK_SEQPACKET));
        self.is_void && has_end(socket_type(socket)) && is_at_end(socket)
    }
}

/// The message header of every datagram receive: it asks for the sender's address, nothing else.
pub(super) struct ReceiveHeader(pub(super) libc::msghdr);

// SAFETY: never written, and its pointers are null.
unsafe impl Sync for ReceiveHeader {}

pub(super) static RECEIVE_HEADER: ReceiveHeader = {
    // SAFETY: plain integers and pointers: all zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_BYTES as libc::socklen_t;
    ReceiveHeader(header)
};

/// The parts of a slot that a datagram arrived in.
pub(super) struct Parsed {
    pub(super) from: Option<SocketAddr>,
    pub(super) payload: ArenaBytes,
    pub(super) is_truncated: bool,
    pub(super) is_void: bool,
}

impl Parsed {
    /// Takes a slot's bytes apart. Returns `None` if they are shorter than the header.
    pub(super) fn new(mut whole: ArenaBytes) -> Option<Parsed> {
        let header = whole.first_chunk::<DATAGRAM_HEADER_BYTES>()?;
        let field = |index: usize| {
            u32::from_ne_bytes(*header[4 * index..].first_chunk().expect("four bytes"))
        };
        let (name_bytes, payload_bytes, flags) = (field(0) as usize, field(2) as usize, field(3));
        let name = &header[LENGTHS_BYTES..][..name_bytes.min(NAME_BYTES)];
        let from = address(name);
        whole.advance(DATAGRAM_HEADER_BYTES);
        whole.truncate(payload_bytes);
        let has = |flag: libc::c_int| flags & flag as u32 != 0;
        let is_void = payload_bytes == 0 && name_bytes == 0 && !has(libc::MSG_EOR);
        Some(Parsed { from, payload: whole, is_truncated: has(libc::MSG_TRUNC), is_void })
    }
}

/// Reads the socket address in `name`, as the kernel writes it (`struct sockaddr_in`,
/// `struct sockaddr_in6`).
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(*name.get(4..)?.first_chunk()?);
            let ip: [u8; 16] = *name.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_made_of_any_result() {
        for result in [i32::MIN, i32::MIN + 1, -1] {
            let Status::Failed { errno } = Status::new(result, 0) else { panic!("{result}") };
            assert!(errno > 0, "{errno} of {result}");
        }
        assert_eq!(Status::new(i32::MAX, 0), Status::Ended);
    }

    #[test]
    fn an_address_that_is_cut_off_or_of_another_family_is_none() {
        assert_eq!(address(&[]), None);
        assert_eq!(address(&(libc::AF_INET as u16).to_ne_bytes()), None);
        let mut name = [0; 28];
        assert_eq!(address(&name), None);
        name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        name[2..8].copy_from_slice(&[0x1F, 0x90, 127, 0, 0, 1]);
        assert_eq!(address(&name[..16]), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address(&name[..7]), None);
    }
}
