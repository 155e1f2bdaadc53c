//! The events of a driver.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::{BufferRingId, FileId, OperationId, SocketId};
use crate::buffer::{Buffer, Payload};
use crate::uring::Datagram;

/// An event of a [`Driver`](crate::Driver). `B` is the type of received bytes.
///
/// ```
/// use uring_arena::Event;
///
/// /// One line of a log.
/// fn describe(event: &Event) -> String {
///     match event {
///         Event::Received { id, bytes } => format!("{id:?}: {} bytes", bytes.len()),
///         Event::Closed { id, error: None } => format!("{id:?}: the peer finished"),
///         Event::Closed { id, error: Some(error) } => format!("{id:?}: {error}"),
///         other => format!("{other:?}"),
///     }
/// }
/// # let _ = describe;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<B = Bytes> {
    /// Bytes came in, in order for each socket. They may be dropped anywhere; the last drop frees
    /// the slot.
    Received {
        /// The socket.
        id: SocketId,
        /// The bytes, exactly as many as were received. Never empty.
        bytes: B,
    },
    /// A datagram came in, or a message of a connection that keeps boundaries (`SOCK_SEQPACKET`).
    Datagram {
        /// The socket.
        id: SocketId,
        /// The datagram, with the address of its sender.
        datagram: Datagram<B>,
    },
    /// A connection came in.
    Accepted {
        /// The listener.
        id: SocketId,
        /// The connection.
        socket: OwnedFd,
    },
    /// The system had no descriptor or no memory for a connection that came in, or a firewall
    /// forbade it. The listener stays.
    ///
    /// It tries again after some time, 0.1 s at most, and when the driver closes a descriptor. The
    /// event comes once until a connection was accepted again; `retries` of
    /// [`DriverMetrics`](crate::DriverMetrics) counts each try.
    AcceptFailed {
        /// The listener.
        id: SocketId,
        /// The error: `EMFILE` if the process has no descriptor left, say.
        error: io::Error,
    },
    /// A buffer ring was registered while no slot of its arena was free. It receives nothing before
    /// it has some, which it gets as soon as some are free. Comes once a ring.
    BufferRingEmpty {
        /// The ring.
        ring: BufferRingId,
    },
    /// A read is over.
    Read {
        /// The id that [`Driver::read`](crate::Driver::read) returned.
        id: OperationId,
        /// The offset in the file where the read began, in bytes.
        offset: u64,
        /// The number of bytes read, or an error. Fewer bytes than there was room for come only at
        /// the end of a file, or from a pipe or socket.
        result: io::Result<usize>,
        /// The buffer, longer by what was read.
        buffer: Buffer,
    },
    /// A write is over.
    Wrote {
        /// The id that [`Driver::write`](crate::Driver::write) returned.
        id: OperationId,
        /// The offset in the file where the write began, in bytes.
        offset: u64,
        /// The number of bytes written, which is all of them, or an error.
        result: io::Result<usize>,
        /// The number of bytes that were written, also before an error.
        written: usize,
        /// The memory.
        payload: Payload,
    },
    /// A send is over, and the kernel done with its memory.
    Sent {
        /// The id that [`Driver::send`](crate::Driver::send) returned.
        id: OperationId,
        /// The number of bytes sent, which is all of them, or an error.
        result: io::Result<usize>,
        /// The number of bytes that went out, also before an error. If they are a part only, the
        /// later sends of the socket fail: the peer would take their bytes for the rest.
        sent: usize,
        /// The memory.
        payload: Payload,
        /// Says that the kernel copied the bytes of a zero-copy send after all, as it does on
        /// loopback. `None` for ordinary sends, and where the kernel does not say (before 6.2).
        copied: Option<bool>,
    },
    /// A file is closed: its operations are over, their events were taken, and the driver's
    /// descriptor is closed. Comes once a file: after
    /// [`abort_file`](crate::Driver::abort_file), and with
    /// [`file_events`](crate::DriverBuilder::file_events) after
    /// [`close_file`](crate::Driver::close_file) too.
    FileClosed {
        /// The id, which names nothing from here on.
        id: FileId,
    },
    /// The socket is closed: no further event is of it. Comes once a socket.
    Closed {
        /// The socket.
        id: SocketId,
        /// The error that ended it. `None`: the peer finished, or the program closed it.
        error: Option<io::Error>,
    },
}
