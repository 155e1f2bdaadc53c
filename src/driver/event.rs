//! What a driver tells.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::key::Key;

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
    /// A small number, below the driver's [`operations`](crate::DriverBuilder::operations), that no other open socket
    /// has: for a table of your own. Given out again after [`Event::Closed`].
    pub fn index(self) -> usize {
        self.0.place as usize
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
    /// A connection came in.
    Accepted {
        /// The listener.
        id: SocketId,
        /// The connection.
        socket: OwnedFd,
    },
    /// The socket is closed: nothing more comes from it, and its number may be given out again. Comes once a socket.
    Closed {
        /// The socket.
        id: SocketId,
        /// What went wrong. `None`: the peer finished, or you closed it.
        error: Option<io::Error>,
    },
}
