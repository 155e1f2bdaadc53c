//! The result of a completion of a receive: the bytes that came, and the status of the receive.
//!
//! # Safety
//!
//! Unsafe here: a message header with null pointers that all threads share; calls that receive into
//! memory which lives during the call, and counting the bytes that the kernel says that it wrote.
#![allow(unsafe_code)]

use crate::buffer::ArenaBytes;
use crate::lease::CopyCharge;
use crate::system::socket_type;
use crate::uring::kernel::{
    NAME_BYTES_MAX, RECEIVE_CONTROL_BYTES, ReceivedControl, SocketOption, UDP_GRO,
    error_was_pending, ip_address, is_at_end, is_unix_socket, set_number, socket_domain,
    unix_address,
};
use bytes::Buf;
use bytes::Bytes;
use io_uring::cqueue;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net;
use std::time::SystemTime;
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

/// One datagram, with the address of its sender, and the details that its socket was
/// [asked](crate::DatagramDetails) for.
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
    /// The rest that came with the datagram. Boxed, so that an event is small.
    pub(super) details: Option<Box<Details>>,
    /// The datagram's bytes. May be empty.
    pub bytes: B,
    /// True if the datagram was longer than the slot has room for: its end is lost.
    pub is_truncated: bool,
    /// The kernel has written no byte and no sender, nor said that a message ends here (`MSG_EOR`).
    pub(super) is_void: bool,
}

/// The details of a datagram.
#[derive(Debug)]
pub(super) struct Details {
    from_unix: Option<net::SocketAddr>,
    control: ReceivedControl,
}

impl Datagram<()> {
    /// Makes a datagram of what the kernel wrote beside its bytes: a name, of which `name` is as
    /// much as there was room for, control messages and flags.
    pub(in crate::uring) fn new(
        name: &[u8],
        name_bytes: usize,
        control: &[u8],
        flags: libc::c_int,
        payload_bytes: usize,
    ) -> Datagram<()> {
        let has = |flag: libc::c_int| flags & flag != 0;
        // A name that was cut off is none.
        let from_unix = (name_bytes <= name.len()).then(|| unix_address(name)).flatten();
        let has_details = !control.is_empty() || from_unix.is_some();
        let details = || Details { from_unix, control: ReceivedControl::parse(control) };
        Datagram {
            from: ip_address(name),
            details: has_details.then(details).map(Box::new),
            bytes: (),
            is_truncated: has(libc::MSG_TRUNC),
            is_void: payload_bytes == 0 && name_bytes == 0 && !has(libc::MSG_EOR),
        }
    }
}

impl<B> Datagram<B> {
    /// Returns the datagram with other bytes.
    pub(in crate::uring) fn map<C>(self, bytes: impl FnOnce(B) -> C) -> Datagram<C> {
        let Datagram { from, details, is_truncated, is_void, .. } = self;
        Datagram { from, details, bytes: bytes(self.bytes), is_truncated, is_void }
    }

    fn control(&self) -> ReceivedControl {
        self.details.as_ref().map_or_else(ReceivedControl::default, |details| details.control)
    }

    /// Returns the name of a sender that is a Unix socket, if it has one and the ring has room for
    /// it ([`BufferRingOptions::datagram_details`](crate::BufferRingOptions::datagram_details)).
    ///
    /// ```
    /// fn greet(datagram: &uring_arena::Datagram<bytes::Bytes>) {
    ///     if let Some(path) = datagram.from_unix().and_then(|name| name.as_pathname()) {
    ///         println!("from {}", path.display());
    ///     }
    /// }
    /// # let _ = greet;
    /// ```
    pub fn from_unix(&self) -> Option<&net::SocketAddr> {
        self.details.as_ref()?.from_unix.as_ref()
    }

    /// Returns the address that the datagram was sent to, if the socket was
    /// [asked](crate::DatagramDetails::destination).
    pub fn to(&self) -> Option<IpAddr> {
        self.control().to
    }

    /// Returns the index of the interface that the datagram came by, if the socket was asked for
    /// [`to`](Self::to).
    pub fn interface(&self) -> Option<u32> {
        self.to().map(|_| self.control().interface)
    }

    /// Returns the bytes of each of several datagrams that came as one, if the socket
    /// [lets them](crate::DatagramDetails::segments). The last may be shorter.
    pub fn segment_bytes(&self) -> Option<u16> {
        self.control().segment_bytes
    }

    /// Returns the two bits of explicit congestion notification, if
    /// [asked](crate::DatagramDetails::ecn).
    pub fn ecn(&self) -> Option<u8> {
        self.control().ecn
    }

    /// Returns the time when the kernel received the datagram, if
    /// [asked](crate::DatagramDetails::timestamps).
    pub fn timestamp(&self) -> Option<SystemTime> {
        self.control().timestamp
    }

    /// Returns the number of datagrams that the socket has dropped so far, if
    /// [asked](crate::DatagramDetails::drops) and not 0.
    pub fn dropped(&self) -> Option<u32> {
        self.control().dropped
    }

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

/// Bytes of the lengths in front (`struct io_uring_recvmsg_out`).
const LENGTHS_BYTES: usize = 16;

/// Bytes of the sender's address in a ring without details: an IPv6 address is the longest.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// The parts of a slot that a datagram arrives in, before its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatagramLayout {
    has_details: bool,
}

/// A message header that says how much room each part has.
struct ReceiveHeader(libc::msghdr);

// SAFETY: never written, and its pointers are null.
unsafe impl Sync for ReceiveHeader {}

impl ReceiveHeader {
    const fn new(name_bytes: usize, control_bytes: usize) -> ReceiveHeader {
        // SAFETY: plain integers and pointers: all zero is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = name_bytes as libc::socklen_t;
        header.msg_controllen = control_bytes as _;
        ReceiveHeader(header)
    }
}

/// Bytes of a name and of control messages in a ring with details: whole words.
const LONG_NAME_BYTES: usize = NAME_BYTES_MAX.next_multiple_of(8);

static PLAIN: ReceiveHeader = ReceiveHeader::new(NAME_BYTES, 0);
static DETAILED: ReceiveHeader = ReceiveHeader::new(LONG_NAME_BYTES, RECEIVE_CONTROL_BYTES);

/// The header of a receive from a Unix socket, whose control messages would be open descriptors of
/// the sender's: without room for them the kernel drops them. The bytes begin where those of others
/// do.
static UNIX: ReceiveHeader = ReceiveHeader::new(LONG_NAME_BYTES + RECEIVE_CONTROL_BYTES, 0);

impl DatagramLayout {
    pub(super) fn new(has_details: bool) -> DatagramLayout {
        DatagramLayout { has_details }
    }

    /// Returns the bytes of name and control messages.
    fn parts(self) -> (usize, usize) {
        match self.has_details {
            true => (LONG_NAME_BYTES, RECEIVE_CONTROL_BYTES),
            false => (NAME_BYTES, 0),
        }
    }

    /// Returns the bytes of a slot that are not the datagram's.
    pub(super) fn bytes(self) -> usize {
        let (name, control) = self.parts();
        LENGTHS_BYTES + name + control
    }

    /// Returns the message header of a receive from `socket`.
    pub(super) fn header(self, socket: RawFd) -> *const libc::msghdr {
        let header = match self.has_details {
            false => &PLAIN,
            true if is_unix_socket(socket) => &UNIX,
            true => &DETAILED,
        };
        &raw const header.0
    }

    /// Takes a slot's bytes apart. Returns `None` if they are shorter than the header.
    pub(super) fn parse(self, mut whole: ArenaBytes) -> Option<(Datagram<()>, ArenaBytes)> {
        let (name_room, control_room) = self.parts();
        let (header, _) = whole.split_at_checked(self.bytes())?;
        let field = |index: usize| {
            u32::from_ne_bytes(*header[4 * index..].first_chunk().expect("four bytes"))
        };
        let (name_bytes, control_bytes) = (field(0) as usize, field(1) as usize);
        let (payload_bytes, flags) = (field(2) as usize, field(3));
        let name = &header[LENGTHS_BYTES..][..name_bytes.min(name_room)];
        let control = &header[LENGTHS_BYTES + name_room..][..control_bytes.min(control_room)];
        let flags = flags as libc::c_int;
        let datagram = Datagram::new(name, name_bytes, control, flags, payload_bytes);
        whole.advance(self.bytes());
        whole.truncate(payload_bytes);
        Some((datagram, whole))
    }
}

/// The details of datagrams that a socket is asked for, beside bytes and sender.
///
/// They come with each datagram that is received into a ring which has room for them
/// ([`BufferRingOptions::datagram_details`](crate::BufferRingOptions::datagram_details)).
///
/// ```
/// use std::net::UdpSocket;
/// use uring_arena::DatagramDetails;
///
/// let socket = UdpSocket::bind("0.0.0.0:0")?;
/// DatagramDetails::new().destination().ecn().drops().enable(&socket)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "details are not asked for until `enable`"]
pub struct DatagramDetails {
    destination: bool,
    segments: bool,
    ecn: bool,
    timestamps: bool,
    drops: bool,
}

impl DatagramDetails {
    /// Asks for nothing.
    pub fn new() -> DatagramDetails {
        DatagramDetails::default()
    }

    /// Asks for the address that a datagram was sent to, and the interface that it came by
    /// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`): [`Datagram::to`](crate::Datagram::to).
    ///
    /// A server that is bound to all addresses answers from that one.
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().destination();
    /// # let _ = details;
    /// ```
    pub fn destination(mut self) -> DatagramDetails {
        self.destination = true;
        self
    }

    /// Lets several datagrams of one sender come as one message (`UDP_GRO`, Linux 5.0):
    /// [`Datagram::segment_bytes`](crate::Datagram::segment_bytes) is the length of each.
    ///
    /// A slot should then have room for 64 KiB.
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().segments();
    /// # let _ = details;
    /// ```
    pub fn segments(mut self) -> DatagramDetails {
        self.segments = true;
        self
    }

    /// Asks for the bits of explicit congestion notification:
    /// [`Datagram::ecn`](crate::Datagram::ecn).
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().ecn();
    /// # let _ = details;
    /// ```
    pub fn ecn(mut self) -> DatagramDetails {
        self.ecn = true;
        self
    }

    /// Asks for the time when the kernel received a datagram (`SO_TIMESTAMPNS`):
    /// [`Datagram::timestamp`](crate::Datagram::timestamp). Datagrams of Unix sockets have none:
    /// they are received without control messages, which could be open descriptors.
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().timestamps();
    /// # let _ = details;
    /// ```
    pub fn timestamps(mut self) -> DatagramDetails {
        self.timestamps = true;
        self
    }

    /// Asks how many datagrams the socket has dropped for want of room (`SO_RXQ_OVFL`):
    /// [`Datagram::dropped`](crate::Datagram::dropped).
    ///
    /// ```
    /// let details = uring_arena::DatagramDetails::new().drops();
    /// # let _ = details;
    /// ```
    pub fn drops(mut self) -> DatagramDetails {
        self.drops = true;
        self
    }

    /// Asks a socket for the details, from its next datagram on.
    ///
    /// # Errors
    ///
    /// The kernel's error: `ENOPROTOOPT` or `EOPNOTSUPP` for a detail that this kind of socket does
    /// not have.
    ///
    /// The example of [`DatagramDetails`] shows it.
    pub fn enable(self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let is_v6 = socket_domain(socket) == Some(libc::AF_INET6);
        let options: [(bool, SocketOption); 7] = [
            (self.destination && !is_v6, (libc::IPPROTO_IP, libc::IP_PKTINFO)),
            (self.destination && is_v6, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)),
            // Of IPv4 datagrams, which a socket of IPv6 may receive too.
            (self.ecn, (libc::IPPROTO_IP, libc::IP_RECVTOS)),
            (self.ecn && is_v6, (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)),
            (self.segments, (libc::SOL_UDP, UDP_GRO)),
            (self.timestamps, (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)),
            (self.drops, (libc::SOL_SOCKET, libc::SO_RXQ_OVFL)),
        ];
        options
            .iter()
            .filter(|(is_wanted, _)| *is_wanted)
            .try_for_each(|&(_, option)| set_number(socket, option, 1))
    }
}

/// Datagrams by plain system calls, several by one call:
/// [recvmmsg(2)](https://man7.org/linux/man-pages/man2/recvmmsg.2.html). No call waits.
#[cfg(feature = "tokio")]
mod plain {
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr;

    use super::*;
    use crate::buffer::Buffer;

    /// The most datagrams that one call moves.
    pub(crate) const DATAGRAMS_MAX: usize = 32;

    /// Words of the control messages of one datagram.
    const CONTROL_WORDS: usize = RECEIVE_CONTROL_BYTES / size_of::<usize>();

    /// The parts of one datagram that come beside its bytes.
    #[derive(Clone, Copy)]
    struct Envelope {
        name: [u8; NAME_BYTES_MAX],
        control: [usize; CONTROL_WORDS],
        name_bytes: usize,
        control_bytes: usize,
        flags: libc::c_int,
        bytes: usize,
    }

    /// Makes an empty message header.
    fn empty_header() -> libc::msghdr {
        // SAFETY: plain integers and pointers: all zero is a value.
        unsafe { std::mem::zeroed() }
    }

    impl Envelope {
        const EMPTY: Envelope = Envelope {
            name: [0; NAME_BYTES_MAX],
            control: [0; CONTROL_WORDS],
            name_bytes: 0,
            control_bytes: 0,
            flags: 0,
            bytes: 0,
        };

        /// Returns the header of a receive into `room`, and into the envelope.
        fn header(&mut self, room: &mut libc::iovec, has_control: bool) -> libc::msghdr {
            let mut header = empty_header();
            header.msg_name = self.name.as_mut_ptr().cast();
            header.msg_namelen = NAME_BYTES_MAX as libc::socklen_t;
            header.msg_iov = room;
            header.msg_iovlen = 1;
            if has_control {
                header.msg_control = self.control.as_mut_ptr().cast();
                header.msg_controllen = RECEIVE_CONTROL_BYTES as _;
            }
            header
        }

        /// Takes down what the kernel has set in the header of a receive.
        #[allow(clippy::unnecessary_cast, reason = "another C library has another type")]
        fn note(&mut self, header: &libc::msghdr, bytes: usize) {
            self.name_bytes = header.msg_namelen as usize;
            self.control_bytes = header.msg_controllen as usize;
            self.flags = header.msg_flags;
            self.bytes = bytes;
        }

        fn datagram(&self) -> Datagram<()> {
            let name = &self.name[..self.name_bytes.min(NAME_BYTES_MAX)];
            let mut control = [0; RECEIVE_CONTROL_BYTES];
            let used = self.control_bytes.min(RECEIVE_CONTROL_BYTES);
            let words = self.control[..used.div_ceil(size_of::<usize>())].iter();
            let bytes = words.flat_map(|word| word.to_ne_bytes());
            control.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            Datagram::new(name, self.name_bytes, &control[..used], self.flags, self.bytes)
        }
    }

    /// The receiving side of a datagram socket: room for what comes beside the bytes.
    pub(crate) struct Inbox {
        envelopes: Vec<Envelope>,
        has_control: bool,
    }

    impl Inbox {
        /// Makes an inbox. Without `has_control` the kernel drops all control messages: those of a
        /// Unix socket would be open descriptors of the sender's.
        pub(crate) fn new(has_control: bool) -> Inbox {
            Inbox { envelopes: Vec::new(), has_control }
        }

        /// Receives a datagram into the room of each buffer, as far as some wait. Returns their
        /// number, which is at least one.
        pub(crate) fn receive(
            &mut self,
            socket: BorrowedFd<'_>,
            buffers: &mut [Buffer],
        ) -> io::Result<usize> {
            let count = buffers.len().min(DATAGRAMS_MAX);
            if self.envelopes.len() < count {
                self.envelopes.resize(count, Envelope::EMPTY);
            }
            match buffers {
                [] => Err(io::ErrorKind::InvalidInput.into()),
                [buffer] => self.receive_one(socket, buffer).map(|()| 1),
                buffers => self.receive_several(socket, &mut buffers[..count]),
            }
        }

        fn receive_one(&mut self, socket: BorrowedFd<'_>, buffer: &mut Buffer) -> io::Result<()> {
            let mut room = room_of(buffer);
            let mut header = self.envelopes[0].header(&mut room, self.has_control);
            let answer =
                // SAFETY: the header points to an envelope and to the room of a buffer, which are
                // borrowed mutably and live during the call.
                unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
            let bytes = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
            self.envelopes[0].note(&header, bytes);
            count_as_written(buffer, bytes);
            Ok(())
        }

        fn receive_several(
            &mut self,
            socket: BorrowedFd<'_>,
            buffers: &mut [Buffer],
        ) -> io::Result<usize> {
            let mut rooms = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; DATAGRAMS_MAX];
            let mut headers =
                [libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 }; DATAGRAMS_MAX];
            for (index, buffer) in buffers.iter_mut().enumerate() {
                rooms[index] = room_of(buffer);
                let envelope = &mut self.envelopes[index];
                headers[index].msg_hdr = envelope.header(&mut rooms[index], self.has_control);
            }
            let (fd, count) = (socket.as_raw_fd(), buffers.len() as libc::c_uint);
            let (flags, no_time) = (libc::MSG_DONTWAIT as _, ptr::null_mut());
            // SAFETY: each header points to an envelope and to the room of a buffer, which are
            // borrowed mutably and live during the call; `count` headers are there.
            let answer = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, flags, no_time) };
            let came = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
            for (index, buffer) in buffers.iter_mut().take(came).enumerate() {
                let bytes = headers[index].msg_len as usize;
                self.envelopes[index].note(&headers[index].msg_hdr, bytes);
                count_as_written(buffer, bytes);
            }
            Ok(came)
        }

        /// Returns the datagram of the last receive that lies in the buffer of this index, without
        /// its bytes.
        pub(crate) fn datagram<B>(&self, index: usize, bytes: B) -> Datagram<B> {
            self.envelopes[index].datagram().map(|()| bytes)
        }
    }

    /// Returns the room of a buffer.
    fn room_of(buffer: &mut Buffer) -> libc::iovec {
        let spare = buffer.spare_capacity_mut();
        libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() }
    }

    /// Counts what a receive wrote to the room of a buffer.
    fn count_as_written(buffer: &mut Buffer, bytes: usize) {
        // The length of a datagram that was cut may be told, too.
        let len = buffer.capacity().min(buffer.len() + bytes);
        // SAFETY: at most the capacity, and the kernel wrote as many bytes behind those of before.
        unsafe { buffer.set_len(len) };
    }
}

#[cfg(feature = "tokio")]
pub(crate) use plain::{DATAGRAMS_MAX, Inbox};

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
}
