//! TCP connections over loopback: their shape, and the sending ends.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;

/// A number of connections, and the length of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub connections: usize,
    pub message_bytes: usize,
}

impl Shape {
    pub const fn new(connections: usize, message_bytes: usize) -> Self {
        Self { connections, message_bytes }
    }

    /// Returns room for one whole message, and never less than a page.
    pub fn slot_bytes(self) -> usize {
        self.message_bytes.max(4096)
    }

    pub fn key(self) -> String {
        format!("{}x{}", self.connections, self.message_bytes)
    }

    pub fn parse(key: &str) -> Option<Self> {
        let (connections, message_bytes) = key.split_once('x')?;
        Some(Self::new(connections.parse().ok()?, message_bytes.parse().ok()?))
    }

    pub fn title(self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{} connection{plural} × {} B", self.connections, self.message_bytes)
    }
}

/// The sending ends; the receiving ends belong to the system under test.
pub struct Wire {
    senders: Vec<TcpStream>,
    message: Vec<u8>,
}

impl Wire {
    /// Connects pairs inside this process and gives the receiving ends away.
    pub fn connect(shape: Shape) -> io::Result<(Self, Vec<TcpStream>)> {
        allow_descriptors(2 * shape.connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut wire = Self::unconnected(shape.message_bytes);
        let mut receivers = Vec::new();
        for _ in 0..shape.connections {
            wire.connect_one(address)?;
            let (receiver, _) = listener.accept()?;
            receiver.set_nodelay(true)?;
            receivers.push(receiver);
        }
        Ok((wire, receivers))
    }

    pub fn unconnected(message_bytes: usize) -> Self {
        Self { senders: Vec::new(), message: vec![7; message_bytes] }
    }

    /// Connects one sending end more; somebody else accepts.
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

    /// Sends one message to each connection of the range; returns how many bytes that made.
    pub fn send(&mut self, range: Range<usize>) -> io::Result<usize> {
        let bytes = range.len() * self.message.len();
        self.senders[range].iter_mut().try_for_each(|sender| sender.write_all(&self.message))?;
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
    limit.rlim_cur = limit.rlim_cur.max(needed);
    limit.rlim_max = limit.rlim_max.max(needed);
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::other(format!("{needed} open files are needed: raise ulimit -n")));
    }
    Ok(())
}
