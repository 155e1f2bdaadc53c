//! Control messages of datagrams: what comes and goes beside the bytes
//! ([cmsg(3)](https://man7.org/linux/man-pages/man3/cmsg.3.html)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use super::address::as_v6;

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
