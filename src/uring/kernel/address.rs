//! The addresses of sockets, as programs and as the kernel write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::Path;

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
