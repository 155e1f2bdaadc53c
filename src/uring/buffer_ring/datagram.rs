//! Datagrams: each arrives in a slot of its own, behind a header with the sender's address.
//!
//! ```text
//! ┌───────────────┬──────────────────┬─────────────────┬ ─ ─ ─
//! │ lengths, 16 B │ address, 28 B    │ payload         │ room
//! └───────────────┴──────────────────┴─────────────────┴ ─ ─ ─
//! ```
//!
//! # Safety
//!
//! Unsafe here: a message header with null pointers that all threads share.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use bytes::Buf;

use crate::buffer::ArenaBytes;

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
        Some(Parsed { from, payload: whole, is_truncated: flags & libc::MSG_TRUNC as u32 != 0 })
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
