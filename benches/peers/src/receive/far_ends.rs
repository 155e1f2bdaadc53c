//! The sending ends in a process of their own: one process may not hold both ends of ten thousand
//! connections open.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::harness::{Allocator, Child, Sample, serve};

use super::wire::{Wire, allow_descriptors, end_at_once};

/// The word that names this role.
pub const KIND: &str = "far-ends";

/// So many wait to be accepted at a time: beyond 128 the kernel would let the next one try again
/// after a second.
const AT_ONCE: usize = 100;

/// The process that has them.
pub struct FarEnds(Child);

impl FarEnds {
    /// Connects so many, and gives the receiving ends.
    pub fn connect(connections: usize, message_bytes: usize) -> io::Result<(Self, Vec<TcpStream>)> {
        allow_descriptors(connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, size) =
            (listener.local_addr()?.to_string(), format!("{connections}x{message_bytes}"));
        let mut child = Child::start(&["receive", KIND, &address, &size], Allocator::Glibc)?;
        let mut receivers = Vec::with_capacity(connections);
        while receivers.len() < connections {
            let more = AT_ONCE.min(connections - receivers.len());
            child.run(more as u64)?;
            for _ in 0..more {
                let (receiver, _) = listener.accept()?;
                receiver.set_nodelay(true)?;
                end_at_once(&receiver)?;
                receivers.push(receiver);
            }
        }
        Ok((Self(child), receivers))
    }

    /// One message to each of the next so many connections; how many bytes that made.
    pub fn send(&mut self, connections: usize) -> io::Result<usize> {
        let sample = self.0.run(connections as u64)?;
        Ok(sample.get("bytes").ok_or(io::ErrorKind::InvalidData)? as usize)
    }
}

/// The child's side: an order connects so many more until there are all, and later ones write to so
/// many.
pub fn work(address: &str, size: &str) -> io::Result<()> {
    let shape = super::Shape::parse(size).ok_or(io::ErrorKind::InvalidInput)?;
    allow_descriptors(shape.connections as u64 + 64)?;
    let address = address.parse().map_err(io::Error::other)?;
    let mut wire = Wire::unconnected(shape.message_bytes);
    let mut next = 0;
    serve(|times| {
        if wire.connections() < shape.connections {
            (0..times).try_for_each(|_| wire.connect_one(address))?;
            return Ok(Sample::default());
        }
        let end = (next + times as usize).min(wire.connections());
        let bytes = wire.send(next..end)?;
        next = end;
        Ok(Sample::default().with("bytes", bytes as f64))
    })
}
