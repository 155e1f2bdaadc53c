//! Datagrams: each arrives in a slot of its own, behind a header that tells who sent it.
//!
//! ```text
//! ┌───────────────┬──────────────────┬─────────────────┬ ─ ─ ─
//! │ lengths, 16 B │ address, 28 B    │ payload         │ room
//! └───────────────┴──────────────────┴─────────────────┴ ─ ─ ─
//! ```
//!
//! # Safety
//!
//! Unsafe here: a message header with null pointers that is shared by all threads.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use bytes::Buf;
use io_uring::{opcode, squeue, types};

use super::complete::Cursor;
use super::{BufferRing, FromSlot, Received};
use crate::buffer::ArenaBytes;

/// Bytes of the lengths in front (`struct io_uring_recvmsg_out`).
const LENGTHS_BYTES: usize = 16;

/// Room for the sender's address: IPv6 is the longest that is told.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// Bytes of a slot that are not the datagram's.
pub(crate) const DATAGRAM_HEADER_BYTES: usize = LENGTHS_BYTES + NAME_BYTES;

/// One datagram: who sent it, and what.
///
/// ```no_run
/// # use std::os::fd::AsRawFd;
/// # use io_uring::{IoUring, types::Fd};
/// # use uring_arena::BufferRing;
/// # fn receive(uring: &mut IoUring, ring: &mut BufferRing, socket: &std::net::UdpSocket) -> std::io::Result<()> {
/// let entry = ring.receive_datagrams(Fd(socket.as_raw_fd()));
/// // SAFETY: the socket outlives the receive, and the ring's slots are the ring's.
/// unsafe { uring.submission().push(&entry) }.unwrap();
/// uring.submit_and_wait(1)?;
/// for completion in uring.completion() {
///     // SAFETY: a completion of a receive of this ring, handed in once.
///     let mut received = unsafe { ring.complete(&completion) };
///     for datagram in received.datagrams::<bytes::Bytes>() {
///         println!("{:?} sent {} bytes", datagram.from, datagram.bytes.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Datagram<B> {
    /// Where it came from. `None` if that is no IP address.
    pub from: Option<SocketAddr>,
    /// What came. May be empty.
    pub bytes: B,
    /// The datagram was longer than the slot has room for: its end is lost.
    pub is_truncated: bool,
}

/// What every datagram receive asks for: the sender's address, nothing else.
struct Template(libc::msghdr);

// SAFETY: never written, and its pointers are null.
unsafe impl Sync for Template {}

static TEMPLATE: Template = {
    // SAFETY: plain integers and pointers: all zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_BYTES as libc::socklen_t;
    Template(header)
};

impl BufferRing {
    /// An entry for a multishot receive of datagrams into this ring, which must not be incremental
    /// (Linux 6.0). Take them out by [`Received::datagrams`].
    ///
    /// A slot holds a header of 44 bytes and the datagram.
    pub fn receive_datagrams(&self, fd: types::Fd) -> squeue::Entry {
        opcode::RecvMsgMulti::new(fd, ptr::from_ref(&TEMPLATE.0), self.group()).build()
    }

    /// The datagram of a completion.
    pub(crate) fn take_datagram<B: FromSlot>(
        &mut self,
        cursor: &mut Cursor,
    ) -> Option<Datagram<B>> {
        let whole = self.take_in_slot(cursor)?;
        let Some(Parsed { from, payload, is_truncated }) = Parsed::of(whole) else {
            self.metrics.unmatched_completions += 1;
            return None;
        };
        let bytes = if payload.len() < self.copy_below {
            self.metrics.copied += 1;
            self.metrics.received -= 1;
            B::copied(&payload)
        } else {
            B::in_slot(payload)
        };
        Some(Datagram { from, bytes, is_truncated })
    }
}

impl Received<'_> {
    /// What came, as datagrams: for completions of [`BufferRing::receive_datagrams`].
    pub fn datagrams<B: FromSlot>(&mut self) -> impl Iterator<Item = Datagram<B>> {
        std::iter::from_fn(|| self.ring.take_datagram(&mut self.cursor))
    }
}

/// A slot's bytes taken apart.
struct Parsed {
    from: Option<SocketAddr>,
    payload: ArenaBytes,
    is_truncated: bool,
}

impl Parsed {
    /// `None` if it is shorter than its own header.
    fn of(mut whole: ArenaBytes) -> Option<Parsed> {
        let header = whole.first_chunk::<DATAGRAM_HEADER_BYTES>()?;
        let length = |place: usize| {
            u32::from_ne_bytes(*header[4 * place..].first_chunk().expect("four bytes"))
        };
        let (name_bytes, payload_bytes, flags) =
            (length(0) as usize, length(2) as usize, length(3));
        let name = &header[LENGTHS_BYTES..][..name_bytes.min(NAME_BYTES)];
        let from = address(name);
        whole.advance(DATAGRAM_HEADER_BYTES);
        whole.truncate(payload_bytes);
        Some(Parsed { from, payload: whole, is_truncated: flags & libc::MSG_TRUNC as u32 != 0 })
    }
}

/// The socket address in `name`, as the kernel writes it (`struct sockaddr_in`,
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
