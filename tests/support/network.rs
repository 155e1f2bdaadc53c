//! A network of the test's own, and packets that no socket would send.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Runs `body` on a thread in a network of its own, where errors of routes trouble nobody else.
///
/// Prints the reason, and runs nothing, where that is not allowed.
pub fn in_network_of_its_own(test: &str, body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match enter_new_network() {
            Ok(()) => body(),
            Err(error) => eprintln!("SKIPPED {test}: no network of its own ({error})"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Moves this thread into a new network, and sets its loopback device up.
fn enter_new_network() -> io::Result<()> {
    // SAFETY: takes a number, and affects this thread only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: plain numbers: all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    (request.ifr_name[0], request.ifr_name[1]) = (b'l' as _, b'o' as _);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: the request is live during the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A source of ICMP messages about datagrams between two sockets of this host.
pub struct Icmp {
    raw: OwnedFd,
    from: SocketAddr,
    to: SocketAddr,
}

impl Icmp {
    /// Makes a source of messages about a datagram `from` a socket `to` its peer.
    pub fn new(from: SocketAddr, to: SocketAddr) -> io::Result<Icmp> {
        let (family, protocol) = match from {
            SocketAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
            SocketAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
        };
        // SAFETY: takes numbers.
        let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: made above, and owned by nothing else.
        Ok(Icmp { raw: unsafe { OwnedFd::from_raw_fd(fd) }, from, to })
    }

    /// Sends a message of this type and code. The kernel hands it to the socket within the call.
    pub fn send(&self, kind: u8, code: u8) -> io::Result<()> {
        let mut message = vec![kind, code, 0, 0];
        // The largest datagram that fits, where the message has one.
        message.extend(1280u32.to_be_bytes());
        message.extend(self.datagram());
        if self.from.is_ipv4() {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let target = raw_address(self.from.ip());
        // SAFETY: message and address are live during the call.
        let sent = unsafe {
            libc::sendto(
                self.raw.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                target.as_ptr().cast(),
                target.len() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Builds the datagram that the message is about: headers and eight bytes.
    fn datagram(&self) -> Vec<u8> {
        let mut headers = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, 0, 0, 36, 0, 1, 0x40, 0, 64, 17, 0, 0];
                header.extend(from.octets().into_iter().chain(to.octets()));
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, 16, 17, 64];
                header.extend(from.octets().into_iter().chain(to.octets()));
                header
            }
            _ => unreachable!("both are of one family"),
        };
        headers.extend(self.from.port().to_be_bytes());
        headers.extend(self.to.port().to_be_bytes());
        headers.extend([0, 16, 0, 0]);
        headers.extend([0; 8]);
        headers
    }
}

/// Writes an address as `sendto` takes it, without a port.
fn raw_address(ip: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match ip {
        IpAddr::V4(ip) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(ip) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend([0; 6]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

/// Computes the checksum of the internet.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}
