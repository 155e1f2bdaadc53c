//! What a driver tells.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::key::Key;
use crate::ArenaBytes;
use crate::buffer::Buffer;
use crate::buffer::Payload;
use crate::uring::{Datagram, FromSlot};

/// A buffer ring of a [`Driver`](crate::Driver).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferRingId {
    pub(super) driver: u32,
    pub(super) ring: u32,
}

/// A socket that a [`Driver`](crate::Driver) receives from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub(super) Key);

impl SocketId {
    /// A small number, below the driver's [`operations`](crate::DriverBuilder::operations), that no
    /// other open socket has: for a table of your own. Given out again after [`Event::Closed`].
    pub fn index(self) -> usize {
        self.0.place() as usize
    }
}

/// A read, write or send that is under way on a [`Driver`](crate::Driver).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationId(pub(super) Key);

impl OperationId {
    /// A small number, below the driver's [`operations`](crate::DriverBuilder::operations), that
    /// nothing else under way has: for a table of your own. Given out again after the operation's
    /// event.
    pub fn index(self) -> usize {
        self.0.place() as usize
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({})", self.index())
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketId({})", self.index())
    }
}

/// Something that happened on a [`Driver`](crate::Driver). `B` is how bytes are handed out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<B = Bytes> {
    /// Bytes came in, in order for each socket. Drop them anywhere; the last drop frees the slot.
    Received {
        /// The socket.
        id: SocketId,
        /// The bytes, exactly as many as were received. Never empty.
        bytes: B,
    },
    /// A datagram came in.
    Datagram {
        /// The socket.
        id: SocketId,
        /// Who sent it, and what.
        datagram: Datagram<B>,
    },
    /// A connection came in.
    Accepted {
        /// The listener.
        id: SocketId,
        /// The connection.
        socket: OwnedFd,
    },
    /// A read is over.
    Read {
        /// What [`Driver::read`](crate::Driver::read) gave.
        id: OperationId,
        /// Where in the file it began, in bytes.
        offset: u64,
        /// Bytes read: fewer than there was room for only at the end of a file, or from a pipe or
        /// socket. Or why not.
        result: io::Result<usize>,
        /// The buffer, longer by what was read.
        buffer: Buffer,
    },
    /// A write is over.
    Wrote {
        /// What [`Driver::write`](crate::Driver::write) gave.
        id: OperationId,
        /// Where in the file it began, in bytes.
        offset: u64,
        /// Bytes written, or why not all.
        result: io::Result<usize>,
        /// The memory.
        payload: Payload,
    },
    /// A send is over, and the kernel done with its memory.
    Sent {
        /// What [`Driver::send`](crate::Driver::send) gave.
        id: OperationId,
        /// Bytes sent, or why not all.
        result: io::Result<usize>,
        /// The memory.
        payload: Payload,
        /// Whether the kernel copied the bytes of a zero-copy send after all, as it does on
        /// loopback. `None` for ordinary sends, and where the kernel does not say (before 6.2).
        copied: Option<bool>,
    },
    /// The socket is closed: nothing more comes from it, and its number may be given out again.
    /// Comes once a socket.
    Closed {
        /// The socket.
        id: SocketId,
        /// What went wrong. `None`: the peer finished, or you closed it.
        error: Option<io::Error>,
    },
}

impl<B: FromSlot> Event<B> {
    /// The same event with another shape of bytes.
    pub(super) fn delivered(event: Event<ArenaBytes>) -> Event<B> {
        match event {
            Event::Received { id, bytes } => Event::Received { id, bytes: B::in_slot(bytes) },
            Event::Datagram { id, datagram } => {
                let Datagram { from, bytes, is_truncated } = datagram;
                Event::Datagram {
                    id,
                    datagram: Datagram { from, bytes: B::in_slot(bytes), is_truncated },
                }
            }
            Event::Accepted { id, socket } => Event::Accepted { id, socket },
            Event::Closed { id, error } => Event::Closed { id, error },
            Event::Read { id, offset, result, buffer } => {
                Event::Read { id, offset, result, buffer }
            }
            Event::Wrote { id, offset, result, payload } => {
                Event::Wrote { id, offset, result, payload }
            }
            Event::Sent { id, result, payload, copied } => {
                Event::Sent { id, result, payload, copied }
            }
        }
    }
}
