//! The addresses of sockets, as programs and as the kernel write them; and control messages of
//! datagrams ([cmsg(3)](https://man7.org/linux/man-pages/man3/cmsg.3.html)).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The address of a socket: IP and port, or the name of a Unix socket.
///
/// ```
/// use uring_arena::Address;
///
/// let ip = Address::from("127.0.0.1:53".parse::<std::net::SocketAddr>()?);
/// let unix = Address::from(std::os::unix::net::SocketAddr::from_pathname("/run/log.sock")?);
/// assert_eq!(ip.to_string(), "127.0.0.1:53");
/// assert_eq!(unix.to_string(), "/run/log.sock");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The name of a Unix socket: a path, an abstract name, or none.
    Unix(net::SocketAddr),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl From<net::SocketAddr> for Address {
    fn from(address: net::SocketAddr) -> Address {
        Address::Unix(address)
    }
}

/// Writes `address:port`, the path, or `@` and the abstract name.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(address) => match (address.as_pathname(), address.as_abstract_name()) {
                (Some(path), _) => write!(f, "{}", path.display()),
                (None, Some(name)) => write!(f, "@{}", name.escape_ascii()),
                (None, None) => f.write_str("(unnamed)"),
            },
        }
    }
}

/// Bytes of the longest name: that of a Unix socket (`struct sockaddr_un`).
pub(in crate::uring) const NAME_BYTES_MAX: usize = size_of::<libc::sockaddr_un>();

/// An address as the kernel reads it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; NAME_BYTES_MAX],
    len: u16,
}

impl RawAddress {
    /// Returns the address of the bytes.
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len.into()
    }

    /// Returns the family of the socket that has such an address.
    pub(crate) fn family(&self) -> libc::c_int {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]]).into()
    }

    fn append(&mut self, part: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + part.len()].copy_from_slice(part);
        self.len += part.len() as u16;
    }
}

impl From<&Address> for RawAddress {
    fn from(address: &Address) -> RawAddress {
        let mut raw = RawAddress { bytes: [0; NAME_BYTES_MAX], len: 0 };
        let family = |family: libc::c_int| (family as u16).to_ne_bytes();
        match address {
            Address::Ip(SocketAddr::V4(address)) => {
                raw.append(&family(libc::AF_INET));
                raw.append(&address.port().to_be_bytes());
                raw.append(&address.ip().octets());
                raw.append(&[0; 8]);
            }
            Address::Ip(SocketAddr::V6(address)) => {
                raw.append(&family(libc::AF_INET6));
                raw.append(&address.port().to_be_bytes());
                raw.append(&address.flowinfo().to_be_bytes());
                raw.append(&address.ip().octets());
                raw.append(&address.scope_id().to_ne_bytes());
            }
            Address::Unix(address) => {
                raw.append(&family(libc::AF_UNIX));
                if let Some(path) = address.as_pathname() {
                    raw.append(path.as_os_str().as_bytes());
                    // The standard library makes no path without room for its end.
                    raw.append(&[0]);
                } else if let Some(name) = address.as_abstract_name() {
                    raw.append(&[0]);
                    raw.append(name);
                }
            }
        }
        raw
    }
}

/// Reads the IP address in `name`, as the kernel writes it (`struct sockaddr_in`,
/// `struct sockaddr_in6`).
pub(in crate::uring) fn ip_address(name: &[u8]) -> Option<SocketAddr> {
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

/// Reads the name of a Unix socket (`struct sockaddr_un`). `None` if it has none.
pub(in crate::uring) fn unix_address(name: &[u8]) -> Option<net::SocketAddr> {
    let (family, name) = name.split_first_chunk()?;
    if libc::c_int::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
        return None;
    }
    match name.split_first()? {
        (0, abstract_name) => net::SocketAddr::from_abstract_name(abstract_name).ok(),
        _ => {
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            let path = Path::new(std::ffi::OsStr::from_bytes(&name[..end]));
            net::SocketAddr::from_pathname(path).ok()
        }
    }
}

/// Returns an IP address as IPv6 writes it.
pub(in crate::uring) fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The options and control messages of `udp(7)`.
const UDP_SEGMENT: libc::c_int = 103;
pub(in crate::uring) const UDP_GRO: libc::c_int = 104;

/// The boundary on which each message begins.
const ALIGNMENT: usize = size_of::<usize>();

/// Bytes of `struct cmsghdr`.
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

/// Words of the control messages of a datagram that is sent: a source, a length, a mark.
const WORDS: usize = 16;

/// The control messages of one datagram that is sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::uring) struct SendControl {
    words: [usize; WORDS],
    len: usize,
}

impl SendControl {
    pub(in crate::uring) fn new() -> SendControl {
        SendControl { words: [0; WORDS], len: 0 }
    }

    pub(in crate::uring) fn as_ptr(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// Returns the number of bytes.
    pub(in crate::uring) fn len(&self) -> usize {
        self.len
    }

    /// Sends from `address`, and by the interface of an index unless that is 0.
    pub(in crate::uring) fn source(&mut self, address: IpAddr, interface: u32, is_v6: bool) {
        match address {
            IpAddr::V4(address) if !is_v6 => {
                let mut info = [0; 12];
                info[..4].copy_from_slice(&interface.to_ne_bytes());
                info[4..8].copy_from_slice(&address.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            address => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&as_v6(address).octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Cuts the bytes into datagrams of `bytes` each.
    pub(in crate::uring) fn segments(&mut self, bytes: u16) {
        self.push(libc::SOL_UDP, UDP_SEGMENT, &bytes.to_ne_bytes());
    }

    /// Marks the datagram with these bits.
    pub(in crate::uring) fn ecn(&mut self, bits: u8, is_v6: bool) {
        let value = libc::c_int::from(bits).to_ne_bytes();
        match is_v6 {
            true => self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value),
            false => self.push(libc::IPPROTO_IP, libc::IP_TOS, &value),
        }
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let mut message = [0; HEADER_BYTES + 24];
        message[..ALIGNMENT].copy_from_slice(&(HEADER_BYTES + data.len()).to_ne_bytes());
        message[ALIGNMENT..][..4].copy_from_slice(&level.to_ne_bytes());
        message[ALIGNMENT + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_BYTES..][..data.len()].copy_from_slice(data);
        let whole = (HEADER_BYTES + data.len()).next_multiple_of(ALIGNMENT);
        for word in message[..whole].chunks_exact(ALIGNMENT) {
            let word = usize::from_ne_bytes(*word.first_chunk().expect("a whole word"));
            self.words[self.len / ALIGNMENT] = word;
            self.len += ALIGNMENT;
        }
    }
}

/// Bytes of a slot for the control messages of a datagram: those that
/// [`DatagramDetails`](crate::DatagramDetails) can ask for, and some room.
pub(in crate::uring) const RECEIVE_CONTROL_BYTES: usize = 176;

/// The control messages of a datagram that came.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::uring) struct ReceivedControl {
    pub(in crate::uring) to: Option<IpAddr>,
    pub(in crate::uring) interface: u32,
    pub(in crate::uring) segment_bytes: Option<u16>,
    pub(in crate::uring) ecn: Option<u8>,
    pub(in crate::uring) timestamp: Option<SystemTime>,
    pub(in crate::uring) dropped: Option<u32>,
}

impl ReceivedControl {
    /// Reads the messages in `control`. Unknown ones, and what is cut off, are passed over.
    pub(in crate::uring) fn parse(mut control: &[u8]) -> ReceivedControl {
        let mut parsed = ReceivedControl::default();
        while let Some((message, rest)) = split_message(control) {
            parsed.take(message.level, message.kind, message.data);
            control = rest;
        }
        parsed
    }

    fn take(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The header's destination is the last of the three.
                if let (Some(interface), Some(address)) = (bytes(data, 0), bytes(data, 8)) {
                    self.interface = u32::from_ne_bytes(interface);
                    self.to = Some(Ipv4Addr::from(address).into());
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(address), Some(interface)) = (bytes::<16>(data, 0), bytes(data, 16)) {
                    self.interface = u32::from_ne_bytes(interface);
                    self.to = Some(Ipv6Addr::from(address).into());
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // One byte, or a number of four. On either machine one of its bytes is not 0.
                self.ecn = (!data.is_empty()).then(|| data.iter().fold(0, |all, it| all | it) & 3);
            }
            (libc::SOL_UDP, UDP_GRO) => {
                let segment = bytes(data, 0).map(libc::c_int::from_ne_bytes);
                self.segment_bytes = segment.and_then(|bytes| bytes.try_into().ok());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                if let (Some(seconds), Some(nanos)) = (bytes(data, 0), bytes(data, 8)) {
                    let (seconds, nanos) = (u64::from_ne_bytes(seconds), u64::from_ne_bytes(nanos));
                    let since = Duration::new(seconds, nanos.min(999_999_999) as u32);
                    self.timestamp = SystemTime::UNIX_EPOCH.checked_add(since);
                }
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                self.dropped = bytes(data, 0).map(u32::from_ne_bytes);
            }
            _ => {}
        }
    }
}

/// One control message.
struct Message<'a> {
    level: libc::c_int,
    kind: libc::c_int,
    data: &'a [u8],
}

/// Splits the first message off. `None` if no whole one is left.
fn split_message(control: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let len = usize::from_ne_bytes(bytes(control, 0)?);
    let level = libc::c_int::from_ne_bytes(bytes(control, ALIGNMENT)?);
    let kind = libc::c_int::from_ne_bytes(bytes(control, ALIGNMENT + 4)?);
    let data = control.get(HEADER_BYTES..len)?;
    let next = len.checked_next_multiple_of(ALIGNMENT)?;
    Some((Message { level, kind, data }, control.get(next..).unwrap_or_default()))
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(raw: &RawAddress) -> &[u8] {
        &raw.bytes[..usize::from(raw.len)]
    }

    #[test]
    fn an_address_comes_back_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:9", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::from(&Address::Ip(address));
            assert_eq!(ip_address(bytes_of(&raw)), Some(address));
        }
        let long = "x".repeat(107);
        for path in ["/tmp/a", long.as_str()] {
            let address = net::SocketAddr::from_pathname(path).unwrap();
            let raw = RawAddress::from(&Address::Unix(address));
            let back = unix_address(bytes_of(&raw)).unwrap();
            assert_eq!(back.as_pathname(), Some(Path::new(path)));
        }
        let address = net::SocketAddr::from_abstract_name(b"a\0b").unwrap();
        let raw = RawAddress::from(&Address::Unix(address));
        assert_eq!(unix_address(bytes_of(&raw)).unwrap().as_abstract_name(), Some(&b"a\0b"[..]));
    }

    #[test]
    fn an_address_that_is_cut_off_or_of_another_family_is_none() {
        assert_eq!(ip_address(&[]), None);
        assert_eq!(ip_address(&(libc::AF_INET as u16).to_ne_bytes()), None);
        assert!(unix_address(&(libc::AF_UNIX as u16).to_ne_bytes()).is_none());
        let mut name = [0; 28];
        assert_eq!(ip_address(&name), None);
        assert!(unix_address(&name).is_none());
        name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        name[2..8].copy_from_slice(&[0x1F, 0x90, 127, 0, 0, 1]);
        assert_eq!(ip_address(&name[..16]), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(ip_address(&name[..7]), None);
    }
}

#[cfg(test)]
mod control_tests {
    use proptest::prelude::*;

    use super::*;

    fn written(control: &SendControl) -> Vec<u8> {
        let bytes = control.words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(control.len).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for (source, is_v6) in [("127.0.0.2", false), ("::1", true), ("127.0.0.2", true)] {
            let source: IpAddr = source.parse().unwrap();
            let mut control = SendControl::new();
            control.source(source, 7, is_v6);
            control.ecn(2, is_v6);
            control.segments(1200);
            let bytes = written(&control);
            let parsed = ReceivedControl::parse(&bytes);
            // Of IPv4 the kernel reads another field than it writes.
            let to = if is_v6 { Some(as_v6(source).into()) } else { parsed.to };
            assert_eq!((parsed.to, parsed.interface, parsed.ecn), (to, 7, Some(2)));
            assert_eq!(bytes.len() % ALIGNMENT, 0);
        }
    }

    proptest! {
        /// The property: whatever the bytes, reading ends, and reads nothing beyond them.
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = ReceivedControl::parse(&bytes);
        }
    }
}
