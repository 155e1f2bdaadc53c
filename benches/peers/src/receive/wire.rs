//! Both ends of some TCP connections over loopback, in one process.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// The sending ends; the receiving ends belong to the system under test.
pub struct Wire {
    senders: Vec<TcpStream>,
    message: Vec<u8>,
}

impl Wire {
    /// Connects `connections` pairs and gives the receiving ends away.
    pub fn connect(connections: usize, message_bytes: usize) -> io::Result<(Self, Vec<TcpStream>)> {
        allow_descriptors(2 * connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            let sender = TcpStream::connect(address)?;
            let (receiver, _) = listener.accept()?;
            sender.set_nodelay(true)?;
            receiver.set_nodelay(true)?;
            senders.push(sender);
            receivers.push(receiver);
        }
        let message = vec![7; message_bytes];
        Ok((Self { senders, message }, receivers))
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

/// Raises the soft limit of open files as far as needed, and the hard one if we may.
fn allow_descriptors(needed: u64) -> io::Result<()> {
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
