//! The requests of a program: receive, accept, read, write, send, and no more of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::files::is_event_fd;
use super::socket::Source;
use super::transfer::{Action, Transfer};
use super::{
    BufferRingId, Driver, DriverError, FileError, FileId, OperationId, SocketError, SocketId,
    SubmitError, TransferError,
};
use crate::buffer::{Buffer, Payload};
use crate::uring::{DATAGRAM_HEADER_BYTES, Feature, SendOptions};

/// Sockets.
impl Driver {
    /// Receives from `socket` into `ring` until the peer finishes or the program
    /// [closes](Self::close) it: bytes come as [`Event::Received`](crate::Event::Received), in
    /// order.
    ///
    /// The driver owns the socket, so that its number is not given to another file while the kernel
    /// uses it; a clone (`try_clone`) writes to it. Streams (TCP, Unix); multishot (Linux 6.0),
    /// armed again when it ends; an older kernel receives one message at a time. Sockets of
    /// messages are for [`receive_datagrams`](Self::receive_datagrams).
    ///
    /// # Errors
    ///
    /// The socket back, and a [`DriverError`]: [`UnknownRing`](DriverError::UnknownRing) if the
    /// ring was unregistered; [`OtherDriver`](DriverError::OtherDriver);
    /// [`SocketType`](DriverError::SocketType) for a socket that is no stream;
    /// [`TooManyOperations`](DriverError::TooManyOperations) if the driver has as many operations
    /// as it was built for.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use std::os::unix::net::UnixStream;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (mut sender, socket) = UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// sender.write_all(b"hello")?;
    /// driver.wait()?;
    /// let Some(Event::Received { id: from, bytes }) = driver.next() else { panic!() };
    /// assert_eq!((from, &bytes[..]), (id, &b"hello"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, SocketError> {
        self.open(|driver| Ok(Source::Stream(driver.rings.by_id(ring)?.0)), socket.into())
    }

    /// Receives from the reading end of a pipe, as [`receive`](Self::receive) does (multishot:
    /// Linux 6.7).
    ///
    /// # Errors
    ///
    /// As for `receive`.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// driver.read_pipe(ring, reader)?;
    /// writer.write_all(b"through a pipe")?;
    /// driver.wait()?;
    /// let Some(Event::Received { bytes, .. }) = driver.next() else { panic!() };
    /// assert_eq!(bytes, "through a pipe");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_pipe(
        &mut self,
        ring: BufferRingId,
        pipe: impl Into<OwnedFd>,
    ) -> Result<SocketId, SocketError> {
        let pipe = pipe.into();
        if is_event_fd(pipe.as_fd()) {
            self.wakeup.note_event_fd();
        }
        self.open(|driver| Ok(Source::Pipe(driver.rings.by_id(ring)?.0)), pipe)
    }

    /// Receives datagrams from `socket` into `ring`, each in a slot of its own, until the program
    /// [closes](Self::close) it (Linux 6.0).
    ///
    /// They come as [`Event::Datagram`](crate::Event::Datagram), with the sender's address. A slot
    /// holds a header of 44 bytes and the datagram; one that is longer is cut and marked.
    ///
    /// The pending errors of a datagram socket (ICMP: port or host unreachable, message too long,
    /// and so on) do not end it. It is closed only if its descriptor is not what it seems.
    ///
    /// A connection that keeps the boundaries of messages (`SOCK_SEQPACKET`) is received from in
    /// this way too. Each message is a datagram, also an empty one. When the peer has finished,
    /// [`Event::Closed`](crate::Event::Closed) comes once, with the error of a reset after the
    /// messages before it. An empty message of a peer without an address cannot be told from the
    /// end if nothing follows it, and is taken for the end
    /// ([`Datagram::is_end_of`](crate::Datagram::is_end_of)).
    ///
    /// # Errors
    ///
    /// The socket back, and a [`DriverError`]: [`SocketType`](DriverError::SocketType) for a
    /// stream; [`SlotTooSmall`](DriverError::SlotTooSmall) if a slot has no room behind the header;
    /// [`RingIsIncremental`](DriverError::RingIsIncremental) for a ring that lets several messages
    /// share a slot, which the kernel's datagram receive does not work well with;
    /// [`Unsupported`](DriverError::Unsupported) before Linux 6.0; and as for
    /// [`receive`](Self::receive).
    ///
    /// ```
    /// # use std::net::UdpSocket;
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(2048).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// let address = ours.local_addr()?;
    /// driver.receive_datagrams(ring, ours)?;
    /// theirs.send_to(b"ping", address)?;
    /// driver.wait()?;
    /// let Some(Event::Datagram { datagram, .. }) = driver.next() else { panic!() };
    /// assert_eq!(datagram.from, Some(theirs.local_addr()?));
    /// assert_eq!(datagram.bytes, "ping");
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive_datagrams(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, SocketError> {
        self.open(|driver| driver.datagram_source(ring), socket.into())
    }

    /// Returns the source of datagrams into a ring, if its slots can take them.
    fn datagram_source(&self, ring: BufferRingId) -> Result<Source, DriverError> {
        let (key, ring) = self.rings.by_id(ring)?;
        let buffers = &ring.buffers;
        if buffers.is_incremental() {
            return Err(DriverError::RingIsIncremental);
        }
        if !self.supported.has(Feature::RecvMultishot) {
            return Err(DriverError::Unsupported {
                what: "receiving datagrams into a buffer ring",
                since: Feature::RecvMultishot.since(),
            });
        }
        let bytes = buffers.slot_bytes();
        if bytes <= DATAGRAM_HEADER_BYTES {
            return Err(DriverError::SlotTooSmall { bytes, needed: DATAGRAM_HEADER_BYTES + 1 });
        }
        Ok(Source::Datagrams(key))
    }

    /// Accepts every connection on `listener` (multishot, Linux 5.19; one at a time on an older
    /// kernel): each is an [`Event::Accepted`](crate::Event::Accepted).
    ///
    /// The driver owns the listener until the program [closes](Self::close) it. An error of one
    /// connection does not end it, and neither does a lack of descriptors or of memory: that is
    /// told by [`Event::AcceptFailed`](crate::Event::AcceptFailed), and tried again. A descriptor
    /// that is no listener is [`Event::Closed`](crate::Event::Closed) with an error.
    ///
    /// # Errors
    ///
    /// The listener back, and [`DriverError::TooManyOperations`] if the driver has as many
    /// operations as it was built for.
    ///
    /// ```
    /// # use std::net::{TcpListener, TcpStream};
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let id = driver.accept(listener)?;
    /// let _client = TcpStream::connect(address)?;
    /// loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Accepted { id: from, socket }) = driver.next() {
    ///         assert_eq!(from, id);
    ///         let socket = TcpStream::from(socket);
    ///         assert_eq!(socket.local_addr()?, address);
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept(&mut self, listener: impl Into<OwnedFd>) -> Result<SocketId, SocketError> {
        self.open(|_| Ok(Source::Listener), listener.into())
    }

    /// Takes a descriptor in. If it is refused, it comes back with the reason.
    fn open(
        &mut self,
        source: impl FnOnce(&Driver) -> Result<Source, DriverError>,
        fd: OwnedFd,
    ) -> Result<SocketId, SocketError> {
        let checked = source(self).and_then(|source| {
            self.check_room()?;
            source.of_type(fd.as_fd())
        });
        let source = match checked {
            Ok(source) => source,
            Err(error) => return Err(SocketError::new(error, fd)),
        };
        self.sockets.open(fd, source, &mut self.rings, &mut self.submitter)
    }

    /// Returns the socket, for options and addresses, or for shutting down one direction. `None`
    /// once it is closed, and for an id of another driver.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use std::net::{Shutdown, SocketAddr};
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (socket, _peer) = UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// // The peer learns that no more comes; receiving goes on.
    /// if let Some(socket) = driver.socket(id) {
    ///     UnixStream::from(socket.try_clone_to_owned()?).shutdown(Shutdown::Write)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        self.sockets.by_id(id)
    }

    /// Stops receiving from a socket, or accepting, for now.
    ///
    /// Bytes and connections that came before are still handed out. Later ones stay in the socket,
    /// and then with the peer. A consumer that cannot keep up pauses its socket: without that it
    /// holds ever more slots.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use std::time::Duration;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut sender, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.pause(id)?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// sender.write_all(b"later")?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// assert!(driver.next().is_none());
    /// driver.resume(id)?;
    /// driver.wait()?;
    /// assert!(matches!(driver.next(), Some(Event::Received { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&mut self, id: SocketId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.sockets.pause(id, &mut self.submitter)
    }

    /// Goes on with a socket that was [paused](Self::pause).
    ///
    /// # Errors
    ///
    /// As for `pause`.
    pub fn resume(&mut self, id: SocketId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.sockets.resume(id)
    }

    /// Stops receiving from a socket, or accepting, and closes it.
    ///
    /// [`Event::Closed`](crate::Event::Closed) follows when the kernel has let go of the socket.
    /// Bytes that came before are still handed out.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::net::TcpListener;
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.accept(TcpListener::bind("127.0.0.1:0")?)?;
    /// driver.close(id)?;
    /// let closed = loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Closed { id, error: None }) = driver.next() {
    ///         break id;
    ///     }
    /// };
    /// assert_eq!(closed, id);
    /// assert!(driver.close(id).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&mut self, id: SocketId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.sockets.close(id, &mut self.rings, &mut self.submitter)
    }
}

/// Files, and what is read, written and sent on them.
impl Driver {
    /// Gives the driver a file or a socket to read, write or send on.
    ///
    /// The driver owns it until [`close_file`](Self::close_file), or its own end; a clone
    /// (`try_clone`) stays with the program. The demands of an `O_DIRECT` file on operations are
    /// looked up once, here.
    ///
    /// # Errors
    ///
    /// The file back, and the kernel's error, if the kernel does not say what the file is.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
    /// driver.close_file(id)?;
    /// assert!(driver.close_file(id).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_file(&mut self, file: impl Into<OwnedFd>) -> Result<FileId, FileError> {
        self.files.add(file.into(), &self.submitter, &mut self.wakeup)
    }

    /// Returns the file behind an id, for its length and the like.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownFile`] if the file was closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::fs::File;
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.add_file(File::open("/proc/self/exe")?)?;
    /// let file = File::from(driver.file(id)?.try_clone_to_owned()?);
    /// assert!(file.metadata()?.len() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn file(&self, id: FileId) -> Result<BorrowedFd<'_>, DriverError> {
        self.files.by_id(id)
    }

    /// Closes a file. Operations on it that are under way finish first, and sends that wait their
    /// turn are sent. With [`file_events`](crate::DriverBuilder::file_events) an event tells when
    /// it is closed.
    ///
    /// A peer that stops reading keeps a send, and so the file, for as long as it likes:
    /// [`abort_file`](Self::abort_file) ends that, also after this call. The close itself never
    /// waits: a time to linger (`SO_LINGER`) is switched off before it, which a clone of the socket
    /// sees.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownFile`] if the file was closed; [`DriverError::OtherDriver`].
    pub fn close_file(&mut self, id: FileId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.files.begin_close(id)?;
        self.transfers.close_if_idle(key, &mut self.files, &self.submitter);
        // A listener may have waited for a descriptor.
        self.sockets.retry();
        Ok(())
    }

    /// Closes a file at once, and throws away what is to be sent on it: for a peer that does not
    /// read. Works on a file that [`close_file`](Self::close_file) is closing, too.
    ///
    /// * Every operation on the file is cancelled, and its event comes. Each send ends with
    ///   `ECANCELED`, even if the socket had taken its bytes.
    /// * A TCP connection is reset: the peer gets `ECONNRESET`, and what the socket had queued is
    ///   thrown away. **Every duplicate of the socket is affected** (`try_clone`, a forked child,
    ///   a [`receive`](Self::receive) on a clone): it is not connected any more.
    /// * A Unix socket has no queue of its own: what was sent is with the peer, which reads it, and
    ///   then the end. A clone of it stays connected.
    /// * The slot of a zero-copy send is free when the kernel says that it is done with it, as
    ///   always; the reset makes it say so.
    ///
    /// [`Event::FileClosed`](crate::Event::FileClosed) comes after the last of these events. The
    /// call costs what is under way on the file, whatever else the driver has.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownFile`] if the file is closed already; [`DriverError::OtherDriver`];
    /// [`DriverError::System`] if the kernel refuses to go on.
    ///
    /// ```
    /// # use std::net::{TcpListener, TcpStream};
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let ours = TcpStream::connect(listener.local_addr()?)?;
    /// let (_never_read, _) = listener.accept()?;
    /// let socket = driver.add_file(ours)?;
    /// driver.send(socket, bytes::Bytes::from(vec![0; 64 << 20]))?;
    /// driver.abort_file(socket)?;
    /// loop {
    ///     driver.wait()?;
    ///     match driver.next() {
    ///         Some(Event::Sent { result, .. }) => assert!(result.is_err()),
    ///         Some(Event::FileClosed { id }) if id == socket => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort_file(&mut self, id: FileId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.files.abort(id)?;
        self.transfers.abort(key, &mut self.files, &mut self.submitter)?;
        // A listener may have waited for a descriptor.
        self.sockets.retry();
        Ok(())
    }

    /// Reads from `offset` of a file into the room of `buffer`, behind what it holds: a new buffer
    /// is filled from its start.
    ///
    /// [`Event::Read`](crate::Event::Read) brings the buffer back. A short read of a file goes on
    /// until the room is full or the file ends. A read of a pipe or socket brings what there is
    /// (`offset` 0).
    ///
    /// # Errors
    ///
    /// The buffer back, and a [`TransferError`]: an unknown file, a buffer without room, an offset
    /// that no file has, an offset, length or address that an `O_DIRECT` file does not take, too
    /// many operations.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// driver.register(&arena)?;
    /// let file = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
    /// let read = driver.read(file, arena.allocate()?, 0)?;
    /// let bytes = loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Read { id, result, buffer, .. }) = driver.next() {
    ///         assert_eq!((id, result?), (read, 4096));
    ///         break buffer.freeze();
    ///     }
    /// };
    /// assert_eq!(bytes[..4], *b"\x7fELF");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(
        &mut self,
        file: FileId,
        buffer: Buffer,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Buffer>> {
        if let Err(error) = self.check_read(file, &buffer, offset) {
            return Err(SubmitError { error, memory: buffer });
        }
        self.begin(file, Action::Read, buffer.into(), offset).map_err(|refused| {
            match refused.memory {
                Payload::Buffer(memory) => SubmitError { error: refused.error, memory },
                _ => unreachable!("a buffer was given"),
            }
        })
    }

    fn check_read(&self, file: FileId, buffer: &Buffer, offset: u64) -> Result<(), TransferError> {
        let key = self.files.key(file)?;
        if buffer.len() == buffer.capacity() {
            return Err(TransferError::NoRoom { capacity: buffer.capacity() });
        }
        check_end(offset, buffer.capacity() - buffer.len())?;
        match self.files.get(key).and_then(|open| open.direct) {
            Some(alignment) => Ok(alignment.check_read(buffer, offset)?),
            None => Ok(()),
        }
    }

    fn check_write(&self, file: FileId, bytes: &[u8], offset: u64) -> Result<(), TransferError> {
        let key = self.files.key(file)?;
        check_end(offset, bytes.len())?;
        match self.files.get(key).and_then(|open| open.direct) {
            // Nothing is written from nowhere: there is no address to be aligned.
            Some(alignment) if !bytes.is_empty() => Ok(alignment.check_write(bytes, offset)?),
            _ => Ok(()),
        }
    }

    /// Writes a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) to `offset` of
    /// a file, all of it.
    ///
    /// Memory of a registered arena, like bytes just received, is written from its slot, without a
    /// copy. [`Event::Wrote`](crate::Event::Wrote) brings the memory back, and tells how much was
    /// written if that is not all.
    ///
    /// Writes to a file go on side by side. Writes to a stream go out one after another: to a pipe,
    /// a terminal, a stream socket (`offset` 0), or a file that is open to append. One that ends
    /// part-way lets none follow it, as [`send`](Self::send) says.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for [`read`](Self::read).
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let file = driver.add_file(std::fs::File::options().write(true).open("/dev/null")?)?;
    /// driver.write(file, bytes::Bytes::from_static(b"to nowhere"), 0)?;
    /// driver.wait()?;
    /// let Some(Event::Wrote { result, payload, .. }) = driver.next() else { panic!() };
    /// assert_eq!(result?, payload.as_ref().len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn write(
        &mut self,
        file: FileId,
        memory: impl Into<Payload>,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let memory = memory.into();
        if let Err(error) = self.check_write(file, memory.as_ref(), offset) {
            return Err(SubmitError { error, memory });
        }
        self.begin(file, Action::Write, memory, offset)
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) on a connected
    /// socket, all of it, behind what was given to be sent before.
    ///
    /// Memory of a registered arena goes out from its slot, zero-copy from
    /// [`SendOptions::ZERO_COPY_FROM`] bytes on. [`Event::Sent`](crate::Event::Sent) comes when the
    /// kernel is done with the memory, and brings it back.
    ///
    /// A send that fails or is cancelled after a part of its bytes tears the stream: the peer would
    /// take what follows for the rest. So all later sends of the socket fail, with the kind
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe). A program that can send the rest adds a
    /// clone of the socket anew. Datagrams go out whole or not at all.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`]: an unknown file, too many operations.
    ///
    /// ```
    /// # use std::io::Read;
    /// # use std::os::unix::net::UnixStream;
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// let send = driver.send(socket, bytes::Bytes::from_static(b"hello"))?;
    /// driver.wait()?;
    /// let Some(Event::Sent { id, result, .. }) = driver.next() else { panic!() };
    /// assert_eq!((id, result?), (send, 5));
    /// let mut text = [0; 5];
    /// theirs.read_exact(&mut text)?;
    /// assert_eq!(&text, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send(
        &mut self,
        socket: FileId,
        memory: impl Into<Payload>,
    ) -> Result<OperationId, SubmitError<Payload>> {
        self.send_with(socket, memory, SendOptions::new())
    }

    /// Sends as [`send`](Self::send) does, with options of the program's.
    ///
    /// # Errors
    ///
    /// As for `send`.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use uring_arena::{Driver, SendOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let (ours, _theirs) = UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// let never_zero_copy = SendOptions::new().zero_copy_from(usize::MAX);
    /// driver.send_with(socket, bytes::Bytes::from_static(b"hello"), never_zero_copy)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_with(
        &mut self,
        socket: FileId,
        memory: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<OperationId, SubmitError<Payload>> {
        self.begin(socket, Action::Send(options), memory.into(), 0)
    }

    fn begin(
        &mut self,
        file: FileId,
        action: Action,
        memory: Payload,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let file = match self.check_room().and_then(|()| self.files.key(file)) {
            Ok(file) => file,
            Err(error) => return Err(SubmitError::new(error, memory)),
        };
        let transfer = Transfer::new(file, action, memory, offset);
        self.transfers.begin(transfer, &mut self.files, &self.arenas, &mut self.submitter)
    }

    /// Asks the kernel to give a read, write or send up. Its event says what came of it:
    /// `ECANCELED`, or that it was done already.
    ///
    /// A disk that has begun an operation finishes it. A write or send that is half out stays half
    /// out: its event tells the part, and [nothing may follow it](Self::send).
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownOperation`] if its event was taken; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use std::os::unix::net::UnixStream;
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let (ours, _silent) = UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// let read = driver.read(socket, arena.allocate()?, 0)?;
    /// driver.cancel_operation(read)?;
    /// let result = loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Read { result, .. }) = driver.next() {
    ///         break result;
    ///     }
    /// };
    /// assert!(result.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_operation(&mut self, id: OperationId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.transfers.cancel(id, &mut self.files, &mut self.submitter)
    }
}

/// Checks that `len` bytes from `offset` on can be in a file.
///
/// The kernel takes offsets as signed numbers, and -1 means the descriptor's own position.
fn check_end(offset: u64, len: usize) -> Result<(), TransferError> {
    let limit = i64::MAX as u64;
    match offset.checked_add(len as u64) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(TransferError::Offset { offset, len, limit }),
    }
}
