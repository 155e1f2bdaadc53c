//! The events of a driver.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::{BufferRingId, FileId, OperationId, SocketId, TimerId};
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
///         Event::Received { id, bytes, .. } => format!("{id:?}: {} bytes", bytes.len()),
///         Event::Closed { id, error: None, .. } => format!("{id:?}: the peer finished"),
///         Event::Closed { id, error: Some(error), .. } => format!("{id:?}: {error}"),
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
    #[non_exhaustive]
    Received {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
        /// The bytes, exactly as many as were received. Never empty.
        bytes: B,
    },
    /// A datagram came in, or a message of a connection that keeps boundaries (`SOCK_SEQPACKET`).
    #[non_exhaustive]
    Datagram {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
        /// The datagram, with the address of its sender.
        datagram: Datagram<B>,
    },
    /// The peer has finished, and the socket [stays open](crate::Driver::set_half_open) to be sent
    /// on.
    #[non_exhaustive]
    Finished {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
    },
    /// Nothing came for as long as the socket's
    /// [idle timeout](crate::Driver::set_idle_timeout). Comes again after each further such time.
    #[non_exhaustive]
    Idle {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
    },
    /// A [connection](crate::Driver::connect) was made. What was given to be sent before goes out.
    #[non_exhaustive]
    Connected {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
    },
    /// A connection came in.
    #[non_exhaustive]
    Accepted {
        /// The listener.
        id: SocketId,
        /// The listener's token.
        token: u64,
        /// The connection.
        socket: OwnedFd,
        /// The address of the peer. `None` if it is no IP address, or has gone already.
        from: Option<SocketAddr>,
    },
    /// The system had no descriptor or no memory for a connection that came in, or a firewall
    /// forbade it. The listener stays.
    ///
    /// It tries again after some time, 0.1 s at most, and when the driver closes a descriptor. The
    /// event comes once until a connection was accepted again; `retries` of
    /// [`DriverMetrics`](crate::DriverMetrics) counts each try.
    #[non_exhaustive]
    AcceptFailed {
        /// The listener.
        id: SocketId,
        /// The listener's token.
        token: u64,
        /// The error: `EMFILE` if the process has no descriptor left, say.
        error: io::Error,
    },
    /// A buffer ring was registered while no slot of its arena was free. It receives nothing before
    /// it has some, which it gets as soon as some are free. Comes once a ring.
    #[non_exhaustive]
    BufferRingEmpty {
        /// The ring.
        ring: BufferRingId,
    },
    /// A read is over.
    #[non_exhaustive]
    Read {
        /// The id that [`Driver::read`](crate::Driver::read) returned.
        id: OperationId,
        /// The operation's token, or else the file's.
        token: u64,
        /// The offset in the file where the read began, in bytes.
        offset: u64,
        /// The number of bytes read, or an error. Fewer bytes than there was room for come only at
        /// the end of a file, or from a pipe or socket.
        result: io::Result<usize>,
        /// The buffer, longer by what was read.
        buffer: Buffer,
    },
    /// A read into several buffers is over.
    #[non_exhaustive]
    ReadVectored {
        /// The id that [`Driver::read_vectored`](crate::Driver::read_vectored) returned.
        id: OperationId,
        /// The operation's token, or else the file's.
        token: u64,
        /// The offset in the file where the read began, in bytes.
        offset: u64,
        /// The number of bytes read, or an error, as of `Read`.
        result: io::Result<usize>,
        /// The buffers, longer by what was read.
        buffers: Vec<Buffer>,
    },
    /// A write is over.
    #[non_exhaustive]
    Wrote {
        /// The id that [`Driver::write`](crate::Driver::write) returned.
        id: OperationId,
        /// The operation's token, or else the file's.
        token: u64,
        /// The offset in the file where the write began, in bytes.
        offset: u64,
        /// The number of bytes written, which is all of them, or an error.
        result: io::Result<usize>,
        /// The number of bytes that were written, also before an error.
        written: usize,
        /// The memory.
        payload: Payload,
    },
    /// A write of several pieces is over.
    #[non_exhaustive]
    WroteVectored {
        /// The id that [`Driver::write_vectored`](crate::Driver::write_vectored) returned.
        id: OperationId,
        /// The operation's token, or else the file's.
        token: u64,
        /// The offset in the file where the write began, in bytes.
        offset: u64,
        /// The number of bytes written, which is all of them, or an error.
        result: io::Result<usize>,
        /// The number of bytes that were written, also before an error.
        written: usize,
        /// The memory.
        pieces: Vec<Payload>,
    },
    /// A send is over, and the kernel done with its memory.
    #[non_exhaustive]
    Sent {
        /// The id that [`Driver::send`](crate::Driver::send) returned.
        id: OperationId,
        /// The operation's token, or else the socket's.
        token: u64,
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
    /// A send of several pieces is over, and the kernel done with their memory.
    #[non_exhaustive]
    SentVectored {
        /// The id that [`Driver::send_vectored`](crate::Driver::send_vectored) returned.
        id: OperationId,
        /// The operation's token, or else the socket's.
        token: u64,
        /// The number of bytes sent, which is all of them, or an error.
        result: io::Result<usize>,
        /// The number of bytes that went out, also before an error, as of `Sent`.
        sent: usize,
        /// The memory.
        pieces: Vec<Payload>,
        /// Says that the kernel copied the bytes of a zero-copy send, as of `Sent`.
        copied: Option<bool>,
    },
    /// An operation without memory is over: a sync, an allocation, the end of a sending direction.
    #[non_exhaustive]
    Done {
        /// The id that the call returned.
        id: OperationId,
        /// The operation's token, or else the file's.
        token: u64,
        /// Nothing, or the error.
        result: io::Result<()>,
    },
    /// An [entry of the program's](crate::Driver::push) has completed.
    ///
    /// The last completion is the one whose flags have no `IORING_CQE_F_MORE`; of a zero-copy send
    /// that is the notification.
    #[non_exhaustive]
    Completed {
        /// The id that [`Driver::push`](crate::Driver::push) returned.
        id: OperationId,
        /// The entry's token.
        token: u64,
        /// The result: a number that the opcode defines, or a negative error number.
        result: i32,
        /// The flags of the completion.
        flags: u32,
    },
    /// The time of a [timer](crate::Driver::timer) is over.
    #[non_exhaustive]
    Timer {
        /// The id, which names nothing from here on.
        id: TimerId,
        /// The timer's token.
        token: u64,
    },
    /// A [waker](crate::Driver::waker) was woken. Only [`wait_event`](crate::Driver::wait_event)
    /// tells that.
    Woken,
    /// A file is closed: its operations are over, their events were taken, and the driver's
    /// descriptor is closed. Comes once a file: after
    /// [`abort_file`](crate::Driver::abort_file), and with
    /// [`file_events`](crate::DriverBuilder::file_events) after
    /// [`close_file`](crate::Driver::close_file) too.
    #[non_exhaustive]
    FileClosed {
        /// The id, which names nothing from here on.
        id: FileId,
        /// The file's token.
        token: u64,
    },
    /// The socket is closed: no further event is of it, nor of what was sent on it. Comes once a
    /// socket.
    #[non_exhaustive]
    Closed {
        /// The socket.
        id: SocketId,
        /// The socket's token.
        token: u64,
        /// The error that ended it. `None`: the peer finished, or the program closed it.
        error: Option<io::Error>,
    },
}
