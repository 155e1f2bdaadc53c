//! Datagrams that are sent: memory, with the address that it goes to.
//!
//! # Safety
//!
//! Unsafe here: an empty message header, calls that read from memory which lives during the call,
//! and moving a value with pointers into itself to another thread.
#![allow(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "tokio")]
use std::os::fd::AsRawFd;
use std::os::unix::net;
use std::ptr::NonNull;

#[cfg(feature = "tokio")]
use crate::buffer::Payload;
use crate::buffer::{Borrowed, IoMemory, Span};
#[cfg(feature = "tokio")]
use crate::uring::buffer_ring::DATAGRAMS_MAX;
use crate::uring::buffer_ring::Datagram;
use crate::uring::kernel::{Address, RawAddress, SendControl};

/// The destination of a datagram, and what else goes with it.
///
/// ```
/// use uring_arena::Destination;
///
/// let address: std::net::SocketAddr = "127.0.0.1:5353".parse()?;
/// let plain = Destination::from(address);
/// // Sixteen datagrams of 1200 bytes by one call, marked as capable of ECN.
/// let many = Destination::from(address).segments(1200).ecn(2);
/// # let _ = (plain, many);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Destination {
    to: Address,
    from: Option<IpAddr>,
    interface: u32,
    segment_bytes: Option<u16>,
    ecn: Option<u8>,
}

impl<A: Into<Address>> From<A> for Destination {
    fn from(to: A) -> Destination {
        let (from, interface, segment_bytes, ecn) = (None, 0, None, None);
        Destination { to: to.into(), from, interface, segment_bytes, ecn }
    }
}

impl Destination {
    /// Returns the destination of an answer to a datagram: its sender, from the address that the
    /// datagram was sent to.
    ///
    /// Returns `None` if the datagram has no sender with an address. The address that it was sent
    /// to is known if the socket was asked for it
    /// ([`DatagramDetails::destination`](crate::DatagramDetails::destination)); otherwise the
    /// kernel chooses one, and a client that asked another address of this machine drops the
    /// answer.
    ///
    /// ```
    /// use uring_arena::{Datagram, Destination};
    ///
    /// fn answer(question: &Datagram<bytes::Bytes>) -> Option<Destination> {
    ///     Destination::reply_to(question)
    /// }
    /// # let _ = answer;
    /// ```
    pub fn reply_to<B>(datagram: &Datagram<B>) -> Option<Destination> {
        let ip = datagram.from.map(Address::Ip);
        let to = ip.or_else(|| datagram.from_unix().cloned().map(Address::Unix))?;
        // A group is nobody's own address.
        let from = datagram.to().filter(|to| !to.is_multicast() && !is_broadcast(*to));
        Some(Destination { from, ..Destination::from(to) })
    }

    /// Sends from this address of the machine (`IP_PKTINFO`), for sockets that are bound to all.
    ///
    /// ```
    /// # use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    /// # use uring_arena::Destination;
    /// # let address: SocketAddr = "127.0.0.1:5353".parse().unwrap();
    /// let destination = Destination::from(address).source(Ipv4Addr::LOCALHOST.into());
    /// # let _ = destination;
    /// ```
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Destination {
        self.from = Some(address);
        self
    }

    /// Sends by the interface of this index, with the source address that is set.
    ///
    /// ```
    /// # let address: std::net::SocketAddr = "127.0.0.1:5353".parse().unwrap();
    /// let destination = uring_arena::Destination::from(address).interface(1);
    /// # let _ = destination;
    /// ```
    #[must_use]
    pub fn interface(mut self, index: u32) -> Destination {
        self.interface = index;
        self
    }

    /// Cuts the bytes into datagrams of `bytes` each, the last one what is left (`UDP_SEGMENT`,
    /// Linux 4.18; at most 64 of them, 128 from 6.9 on).
    ///
    /// ```
    /// # let address: std::net::SocketAddr = "127.0.0.1:5353".parse().unwrap();
    /// let destination = uring_arena::Destination::from(address).segments(1200);
    /// # let _ = destination;
    /// ```
    #[must_use]
    pub fn segments(mut self, bytes: u16) -> Destination {
        self.segment_bytes = Some(bytes);
        self
    }

    /// Marks the datagram with the two bits of explicit congestion notification: 0 to 3.
    ///
    /// ```
    /// # let address: std::net::SocketAddr = "127.0.0.1:5353".parse().unwrap();
    /// let capable = uring_arena::Destination::from(address).ecn(2);
    /// # let _ = capable;
    /// ```
    #[must_use]
    pub fn ecn(mut self, bits: u8) -> Destination {
        self.ecn = Some(bits & 3);
        self
    }

    pub(in crate::uring) fn parts(&self) -> MessageParts {
        let name = RawAddress::from(&self.to);
        let is_v6 = name.family() == libc::AF_INET6;
        let mut control = SendControl::new();
        let unspecified = || match is_v6 {
            true => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        };
        if self.from.is_some() || self.interface != 0 {
            control.source(self.from.unwrap_or_else(unspecified), self.interface, is_v6);
        }
        if let Some(bytes) = self.segment_bytes {
            control.segments(bytes);
        }
        if let Some(bits) = self.ecn {
            // What a socket of IPv6 sends by IPv4 is marked by the option of IPv4.
            control.ecn(bits, is_v6 && !is_mapped(&self.to));
        }
        // SAFETY: a message header is numbers and pointers, and all zero is an empty one.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let range = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        MessageParts { header, range, name, control }
    }
}

/// Returns whether an address of IPv6 stands for one of IPv4.
fn is_mapped(address: &Address) -> bool {
    let Address::Ip(SocketAddr::V6(address)) = address else { return false };
    address.ip().to_ipv4_mapped().is_some()
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

impl From<&SocketAddr> for Destination {
    fn from(to: &SocketAddr) -> Destination {
        Destination::from(*to)
    }
}

impl From<&net::SocketAddr> for Destination {
    fn from(to: &net::SocketAddr) -> Destination {
        Destination::from(to.clone())
    }
}

/// The message that an entry names: its header, and what the header points to.
//
// The pointers of `header` are set by `prepare` and lead into the value, which stays where it is
// (in a box) until the kernel is done.
pub struct MessageParts {
    header: libc::msghdr,
    range: libc::iovec,
    name: RawAddress,
    control: SendControl,
}

// SAFETY: the pointers lead into the value itself, or to the memory of its owner, which is Send.
unsafe impl Send for MessageParts {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for MessageParts {}

impl fmt::Debug for MessageParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageParts").finish_non_exhaustive()
    }
}

impl MessageParts {
    /// Points the header to name, control messages and `span`. Returns the header.
    pub(in crate::uring) fn prepare(&mut self, span: Span) -> *const libc::msghdr {
        self.range = libc::iovec { iov_base: span.start.as_ptr().cast(), iov_len: span.len };
        self.header.msg_name = self.name.as_ptr().cast_mut().cast();
        self.header.msg_namelen = self.name.len();
        self.header.msg_iov = &raw mut self.range;
        self.header.msg_iovlen = 1;
        if self.control.len() > 0 {
            self.header.msg_control = self.control.as_ptr().cast_mut().cast();
            self.header.msg_controllen = self.control.len() as _;
        }
        &raw const self.header
    }
}

/// A datagram for a socket that is not connected: memory, with the address that it goes to.
///
/// [`RegisteredArena::send`](crate::RegisteredArena::send) takes it like any memory.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use io_uring::IoUring;
/// use std::net::UdpSocket;
/// use bytes::Bytes;
/// use uring_arena::{Addressed, FixedArena, Progress, RegisteredArena, RegistrationPolicy};
/// use uring_arena::SendOptions;
/// # let arena = FixedArena::new(4, 4096)?;
/// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
/// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
/// # let registered =
/// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
/// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let datagram = Addressed::new(Bytes::from_static(b"ping"), theirs.local_addr()?);
/// let (entry, operation) = registered.send(&ours, datagram, SendOptions::new());
/// # // SAFETY: the operation keeps the memory, the socket stays open until the completion.
/// # unsafe { ring.submission().push(&entry)? };
/// # ring.submit_and_wait(1)?;
/// # let cqe = ring.completion().next().unwrap();
/// // SAFETY: the only completion of the only entry.
/// let progress = unsafe { operation.complete(&cqe) };
/// let Progress::Done { result, buffer, .. } = progress else { unreachable!() };
/// assert_eq!((result?, &buffer.into_memory()[..]), (4, &b"ping"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Addressed<M: IoMemory> {
    memory: M,
    parts: Box<MessageParts>,
}

impl<M: IoMemory> Addressed<M> {
    /// Addresses memory to a destination.
    pub fn new(memory: M, destination: impl Into<Destination>) -> Addressed<M> {
        Addressed { memory, parts: Box::new(destination.into().parts()) }
    }

    /// Returns the memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Points the header to name, control messages and the memory's bytes. Returns the header,
    /// which is valid while the value is borrowed.
    #[cfg(feature = "tokio")]
    pub(in crate::uring) fn header(&mut self) -> *const libc::msghdr
    where
        M: AsRef<[u8]>,
    {
        self.parts.prepare(Span::of(self.memory.as_ref()))
    }

    /// Returns the memory, and forgets the address.
    pub fn into_memory(self) -> M {
        self.memory
    }
}

impl<M: IoMemory> IoMemory for Addressed<M> {}

impl<M: IoMemory> Borrowed for Addressed<M> {
    fn message(&mut self, span: Span) -> Option<NonNull<u8>> {
        NonNull::new(self.parts.prepare(span).cast_mut().cast())
    }

    fn written(&self, each: &mut dyn FnMut(Span)) {
        self.memory.written(each);
    }

    fn quarantine(self) {
        self.memory.quarantine();
        // The kernel may not have read the header yet.
        std::mem::forget(self.parts);
    }
}

/// Sends one datagram by a plain call, which does not wait.
#[cfg(feature = "tokio")]
pub(crate) fn send_datagram(
    socket: std::os::fd::BorrowedFd<'_>,
    bytes: &[u8],
    destination: &Destination,
) -> std::io::Result<()> {
    let mut parts = destination.parts();
    let header = parts.prepare(Span::of(bytes));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points into `parts` and to `bytes`, which live during the call, and the
    // kernel reads them only.
    let answer = unsafe { libc::sendmsg(socket.as_raw_fd(), header, flags) };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the first datagrams of `batch`, each whole. Returns their number, which is at least one;
/// the error is that of the first one. One plain call, which does not wait.
#[cfg(feature = "tokio")]
pub(crate) fn send_datagrams(
    socket: std::os::fd::BorrowedFd<'_>,
    batch: &mut [Addressed<Payload>],
) -> std::io::Result<usize> {
    // SAFETY: a message header is numbers and pointers, and all zero is an empty one.
    let empty = unsafe { std::mem::zeroed::<libc::msghdr>() };
    let mut headers = [libc::mmsghdr { msg_hdr: empty, msg_len: 0 }; DATAGRAMS_MAX];
    let count = batch.len().min(DATAGRAMS_MAX);
    for (header, datagram) in headers.iter_mut().zip(batch) {
        // SAFETY: reads the header of a datagram, which is valid while that is borrowed.
        header.msg_hdr = unsafe { std::ptr::read(datagram.header()) };
    }
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _;
    let (fd, first) = (socket.as_raw_fd(), headers.as_mut_ptr());
    // SAFETY: each header points into its datagram and to the bytes of that, which are borrowed
    // during the call, and the kernel reads them only; `count` headers are there.
    let answer = unsafe { libc::sendmmsg(fd, first, count as libc::c_uint, flags) };
    usize::try_from(answer).map_err(|_| std::io::Error::last_os_error())
}
