//! The sending ends in a process of their own: one process may not hold both ends of ten thousand connections open.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Allocator, Child, Sample, serve};

use super::wire::{Wire, allow_descriptors};

/// The word that names this role.
pub const KIND: &str = "far-ends";

/// The process that has them.
pub struct FarEnds(Child);

impl FarEnds {
    /// Connects so many, and gives the receiving ends.
    pub fn connect(connections: usize, message_bytes: usize) -> io::Result<(Self, Vec<TcpStream>)> {
        allow_descriptors(connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        // The child is ready when it has connected all, so somebody must accept them meanwhile.
        let accepted = thread::spawn(move || {
            let accept = |_| {
                let (receiver, _) = listener.accept()?;
                receiver.set_nodelay(true)?;
                io::Result::Ok(receiver)
            };
            (0..connections).map(accept).collect::<io::Result<Vec<_>>>()
        });
        let size = format!("{connections}x{message_bytes}");
        let child = Child::start(&["receive", KIND, &address, &size], Allocator::Glibc)?;
        let receivers = accepted.join().map_err(|_| io::Error::other("accepting has panicked"))??;
        Ok((Self(child), receivers))
    }

    /// One message to each of the next so many connections; how many bytes that made.
    pub fn send(&mut self, connections: usize) -> io::Result<usize> {
        let sample = self.0.run(connections as u64)?;
        Ok(sample.get("bytes").ok_or(io::ErrorKind::InvalidData)? as usize)
    }
}

/// The child's side: connects to `address`, and writes when it is asked to.
pub fn work(address: &str, size: &str) -> io::Result<()> {
    let shape = super::Shape::parse(size).ok_or(io::ErrorKind::InvalidInput)?;
    allow_descriptors(shape.connections as u64 + 64)?;
    let address = address.parse().map_err(io::Error::other)?;
    let mut wire = Wire::connect_to(address, shape.connections, shape.message_bytes)?;
    let mut next = 0;
    serve(|times| {
        let end = (next + times as usize).min(wire.connections());
        let bytes = wire.send(next..end)?;
        next = end;
        Ok(Sample::default().with("bytes", bytes as f64))
    })
}
