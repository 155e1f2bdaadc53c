//! The sending ends in a process of their own: one process may not hold both ends of ten thousand
//! connections open.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::run::{Child, Sample, Work};

use super::wire::{Shape, Wire, allow_descriptors, end_at_once};

/// The number of connections that wait to be accepted at a time. Beyond 128 the kernel would let
/// the next one try again after a second.
const AT_ONCE: usize = 100;

/// The process that has the sending ends.
pub struct FarEnds(Child);

impl FarEnds {
    /// Connects so many, and gives the receiving ends.
    pub fn connect(shape: Shape) -> io::Result<(Self, Vec<TcpStream>)> {
        let connections = shape.connections;
        allow_descriptors(connections as u64 + 64)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let mut child = Child::start(&["far-ends", &address, &shape.key()])?;
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

    /// Sends one message to each of the next so many connections; returns how many bytes that made.
    pub fn send(&mut self, connections: usize) -> io::Result<usize> {
        let sample = self.0.run(connections as u64)?;
        Ok(sample.get("bytes").ok_or(io::ErrorKind::InvalidData)? as usize)
    }
}

/// Works in the child: an order connects so many more until there are all, and later ones write to
/// so many.
pub fn far_ends(address: &str, shape: &str) -> io::Result<Work> {
    let shape = Shape::parse(shape).ok_or(io::ErrorKind::InvalidInput)?;
    allow_descriptors(shape.connections as u64 + 64)?;
    let address = address.parse().map_err(io::Error::other)?;
    let mut wire = Wire::unconnected(shape.message_bytes);
    let mut next = 0;
    Ok(Box::new(move |times| {
        if wire.connections() < shape.connections {
            (0..times).try_for_each(|_| wire.connect_one(address))?;
            return Ok(Sample::default());
        }
        let end = (next + times as usize).min(wire.connections());
        let bytes = wire.send(next..end)?;
        next = end;
        Ok(Sample::default().with("bytes", bytes as f64))
    }))
}
