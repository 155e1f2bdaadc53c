//! The sending ends of some TCP connections over loopback.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// The sending ends; the receiving ends belong to the system under test.
pub struct Wire {
    senders: Vec<TcpStream>,
    message: Vec<u8>,
}

impl Wire {
    /// Connects `connections` pairs inside this process and gives the receiving ends away.
    pub fn connect(connections: usize, message_bytes: usize) -> io::Result<(Self, Vec<TcpStream>)> {
        allow_descriptors(2 * connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut wire = Self::unconnected(message_bytes);
        let mut receivers = Vec::new();
        for _ in 0..connections {
            wire.connect_one(address)?;
            let (receiver, _) = listener.accept()?;
            receiver.set_nodelay(true)?;
            receivers.push(receiver);
        }
        Ok((wire, receivers))
    }

    /// No sending ends yet.
    pub fn unconnected(message_bytes: usize) -> Self {
        Self { senders: Vec::new(), message: vec![7; message_bytes] }
    }

    /// One sending end more; somebody else accepts.
    pub fn connect_one(&mut self, address: SocketAddr) -> io::Result<()> {
        let sender = TcpStream::connect(address)?;
        sender.set_nodelay(true)?;
        end_at_once(&sender)?;
        self.senders.push(sender);
        Ok(())
    }

    pub fn connections(&self) -> usize {
        self.senders.len()
    }

    /// One message to each connection of the range; how many bytes that made.
    pub fn send(&mut self, range: std::ops::Range<usize>) -> io::Result<usize> {
        let mut bytes = 0;
        for sender in &mut self.senders[range] {
            sender.write_all(&self.message)?;
            bytes += self.message.len();
        }
        Ok(bytes)
    }
}

/// Has the connection end at once when it is closed: ten thousand that linger for a minute would be
/// in the next ones' way.
pub fn end_at_once(socket: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (pointer, bytes) = ((&raw const linger).cast(), size_of_val(&linger) as libc::socklen_t);
    // SAFETY: the pointer is to a live value of the right type and size.
    match unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, pointer, bytes)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of open files as far as needed, and the hard one if we may.
pub fn allow_descriptors(needed: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    limit.rlim_cur = needed;
    limit.rlim_max = limit.rlim_max.max(needed);
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::other(format!("{needed} open files are needed: raise ulimit -n")));
    }
    Ok(())
}
