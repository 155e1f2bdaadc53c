//! The requests of a program: receive, accept, connect, send, read, write, sync, and no more of it.
//!
//! # Safety
//!
//! Unsafe here: pushing entries of the program's, on its word.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::squeue;

use super::files::{OpenFile, is_event_fd};
use super::ids::AnyId;
use super::socket::Source;
use super::timers::Due;
use super::transfer::{Action, Extent, Memory, Transfer, check_entry};
use super::turn::CANCEL_AGAIN;
use super::{
    BufferRingId, Driver, DriverError, FileError, FileId, HasToken, OperationId, SendOn,
    SocketError, SocketId, SubmitError, TimerId, TransferError,
};
use crate::buffer::{Buffer, Payload};
use crate::slab::Key;
use crate::system::SendOptions;
use crate::uring::{
    Address, Addressed, Destination, Feature, RANGES_MAX, RawAddress, listen_on, new_socket,
    reset_connection,
};

/// The connections that may wait to be accepted. The kernel has a limit of its own
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Sockets.
impl Driver {
    /// Receives from `socket` into `ring` until the peer finishes or the program
    /// [closes](Self::close) it: bytes come as [`Event::Received`](crate::Event::Received), in
    /// order.
    ///
    /// The driver owns the socket, so that its number is not given to another file while the kernel
    /// uses it. The id is what is [sent](Self::send) on, too. When the peer has finished, what was
    /// given to be sent goes out, and the socket is closed, unless it stays
    /// [half open](Self::set_half_open). Streams (TCP, Unix); multishot (Linux 6.0),
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
    /// let Some(Event::Received { id: from, bytes, .. }) = driver.next() else { panic!() };
    /// assert_eq!((from, &bytes[..]), (id, &b"hello"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, SocketError> {
        self.receive_with(ring, socket, 0)
    }

    /// Receives as [`receive`](Self::receive) does. Each event of the socket has `token`, a number
    /// of the program's.
    ///
    /// # Errors
    ///
    /// As for `receive`.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (mut peer, socket) = std::os::unix::net::UnixStream::pair()?;
    /// driver.receive_with(ring, socket, 7)?;
    /// peer.write_all(b"hello")?;
    /// let Event::Received { token: 7, .. } = driver.wait_event()? else { panic!() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive_with(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
        token: u64,
    ) -> Result<SocketId, SocketError> {
        let source = |driver: &Driver| Ok(Source::Stream(driver.rings.by_id(ring)?.0));
        let id = self.open(source, socket.into())?;
        let answer = self.sockets.set_token(id, token, &mut self.files);
        debug_assert!(answer.is_ok(), "just opened");
        Ok(id)
    }

    /// Connects to an address, and then receives into `ring` as [`receive`](Self::receive) does.
    ///
    /// [`Event::Connected`](crate::Event::Connected) tells that the connection is made,
    /// [`Event::Closed`](crate::Event::Closed) with an error that it cannot be. Each event has
    /// `token`. What is sent on the id before goes out when the connection is made. Streams: TCP
    /// and Unix; a program that wants another kind, or options before the connect, connects itself
    /// and calls `receive`.
    ///
    /// The system gives up after minutes, so a [deadline](Self::set_connect_deadline) is a good
    /// idea.
    ///
    /// # Errors
    ///
    /// [`DriverError`]: [`UnknownRing`](DriverError::UnknownRing);
    /// [`OtherDriver`](DriverError::OtherDriver);
    /// [`TooManyOperations`](DriverError::TooManyOperations); [`System`](DriverError::System) if no
    /// socket can be made.
    ///
    /// ```
    /// # use std::net::TcpListener;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let id = driver.connect(ring, listener.local_addr()?, 7)?;
    /// driver.send(id, bytes::Bytes::from_static(b"hello"))?;
    /// let Event::Connected { token: 7, .. } = driver.wait_event()? else { panic!() };
    /// let Event::Sent { .. } = driver.wait_event()? else { panic!() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(
        &mut self,
        ring: BufferRingId,
        address: impl Into<Address>,
        token: u64,
    ) -> Result<SocketId, DriverError> {
        self.check_room()?;
        let (ring, _) = self.rings.by_id(ring)?;
        let address = RawAddress::from(&address.into());
        let socket =
            new_socket(&address).map_err(|error| DriverError::system("making a socket", &error))?;
        let Driver { sockets, rings, submitter, files, .. } = self;
        let id = sockets.connect(socket, ring, address, rings, submitter)?;
        sockets.set_token(id, token, files)?;
        Ok(id)
    }

    /// Gives a connect up at a time, if the connection is not made by then: the socket is closed
    /// with [`TimedOut`](std::io::ErrorKind::TimedOut).
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::net::TcpListener;
    /// # use std::time::{Duration, Instant};
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    /// let id = driver.connect(ring, address, 7)?;
    /// driver.set_connect_deadline(id, Instant::now() + Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_connect_deadline(&mut self, id: SocketId, at: Instant) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.sockets.set_connect_deadline(id, Some(at))?;
        self.have_done(at, Due::Connection(key));
        Ok(())
    }

    /// Sets whether a socket stays open when its peer has finished: its sends go on, and
    /// [`Event::Finished`](crate::Event::Finished) comes in place of
    /// [`Event::Closed`](crate::Event::Closed). Default: no.
    ///
    /// The program [closes](Self::close) such a socket itself.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::io::Read;
    /// # use std::net::Shutdown;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (mut peer, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.set_half_open(id, true)?;
    /// peer.shutdown(Shutdown::Write)?;
    /// let Event::Finished { .. } = driver.wait_event()? else { panic!() };
    /// driver.send(id, bytes::Bytes::from_static(b"the answer"))?;
    /// driver.close(id)?;
    /// # while !matches!(driver.wait_event()?, Event::Closed { .. }) {}
    /// let mut text = String::new();
    /// peer.read_to_string(&mut text)?;
    /// assert_eq!(text, "the answer");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_half_open(&mut self, id: SocketId, yes: bool) -> Result<(), DriverError> {
        self.sockets.set_half_open(id, yes)
    }

    /// Sets the time without a byte after which [`Event::Idle`](crate::Event::Idle) tells so, and
    /// again after each further such time; `None` ends that. Of a listener: without a connection.
    ///
    /// The event comes after the time and at most a quarter of it later. A socket that is paused,
    /// or waits for a slot, is not silent. The program decides what follows: it
    /// [closes](Self::close) or [aborts](Self::abort) the socket, or asks the peer.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (_silent, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.set_idle_timeout(id, Some(Duration::from_millis(20)))?;
    /// let Event::Idle { .. } = driver.wait_event()? else { panic!() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_idle_timeout(
        &mut self,
        id: SocketId,
        timeout: Option<Duration>,
    ) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.sockets.key(id)?;
        self.timers.watch(key, timeout);
        self.clean_timers();
        Ok(())
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
    /// holds a header of 44 bytes and the datagram; one that is longer is cut and marked. Further
    /// [details](crate::DatagramDetails) come if the socket was asked for them and the ring has
    /// [room](crate::BufferRingOptions::datagram_details).
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

    /// Checks that datagrams can be received into a ring.
    #[cfg(feature = "tokio")]
    pub(crate) fn check_datagrams(&self, ring: BufferRingId) -> Result<(), DriverError> {
        self.datagram_source(ring).map(drop)
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
        let (bytes, header) = (buffers.slot_bytes(), buffers.datagram_header_bytes());
        if bytes <= header {
            return Err(DriverError::SlotTooSmall { bytes, needed: header + 1 });
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
    ///     if let Some(Event::Accepted { id: from, socket, .. }) = driver.next() {
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

    /// Listens on an address, and accepts as [`accept`](Self::accept) does. Each event has `token`.
    ///
    /// The address of a TCP listener is taken even if connections of an earlier one still end
    /// (`SO_REUSEADDR`). [`socket`](Self::socket) tells the port, if any was asked for.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the address is in use, or not this machine's; and as for
    /// `accept`.
    ///
    /// ```
    /// # use std::net::{SocketAddr, TcpListener};
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.listen(SocketAddr::from(([127, 0, 0, 1], 0)), 7)?;
    /// let socket = driver.socket(id).unwrap().try_clone_to_owned()?;
    /// println!("listening on {}", TcpListener::from(socket).local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen(
        &mut self,
        address: impl Into<Address>,
        token: u64,
    ) -> Result<SocketId, DriverError> {
        self.check_room()?;
        let address = RawAddress::from(&address.into());
        let listener = new_socket(&address).and_then(|socket| {
            listen_on(socket.as_fd(), &address, BACKLOG)?;
            Ok(socket)
        });
        let listener = listener.map_err(|error| DriverError::system("listening", &error))?;
        let id = self.accept(listener).map_err(|refused| refused.error)?;
        self.sockets.set_token(id, token, &mut self.files)?;
        Ok(id)
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

    /// Stops receiving from a socket, or accepting, and closes it, in both directions.
    ///
    /// The sends that were queued before go out first, however long their peer takes:
    /// [`abort`](Self::abort) ends that, also after this call. A [connect](Self::connect) that is
    /// under way is given up, and with it what was to be sent.
    /// [`Event::Closed`](crate::Event::Closed) follows when all of it is over and the kernel has
    /// let go of the socket. Bytes that came before are still handed out.
    ///
    /// A TCP connection is reset by a close while bytes of the peer wait in it, and the peer may
    /// lose what was sent last. A server that must not lose it calls
    /// [`shutdown_write`](Self::shutdown_write), and closes when the peer has finished.
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
    ///     if let Some(Event::Closed { id, error: None, .. }) = driver.next() {
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
        self.close_receiving(id)
    }

    /// Closes a socket at once, and throws away what is to be sent on it: for a peer that does not
    /// read. Works on a socket that [`close`](Self::close) is closing, too.
    ///
    /// A TCP connection is reset, whoever has a duplicate of the socket; the rest is as for
    /// [`abort_file`](Self::abort_file). [`Event::Closed`](crate::Event::Closed) comes after the
    /// events of all sends.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if the socket is closed; [`DriverError::OtherDriver`];
    /// [`DriverError::System`] if the kernel refuses to go on.
    ///
    /// ```
    /// # use std::net::{TcpListener, TcpStream};
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let ours = TcpStream::connect(listener.local_addr()?)?;
    /// let (_never_read, _) = listener.accept()?;
    /// let id = driver.receive(ring, ours)?;
    /// driver.send(id, bytes::Bytes::from(vec![0; 64 << 20]))?;
    /// driver.abort(id)?;
    /// let Event::Sent { result: Err(_), .. } = driver.wait_event()? else { panic!() };
    /// let Event::Closed { .. } = driver.wait_event()? else { panic!() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&mut self, id: SocketId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let sending = self.sockets.sending_if_any(id)?;
        if let Some(socket) = self.sockets.by_id(id) {
            reset_connection(socket);
        }
        if let Some(sending) = sending {
            self.files.abort(sending);
            self.transfers.abort(sending, &mut self.files, &mut self.submitter)?;
        }
        self.close_receiving(id)
    }

    fn close_receiving(&mut self, id: SocketId) -> Result<(), DriverError> {
        let key = self.sockets.key(id)?;
        self.sockets.close(id, &mut self.rings, &mut self.submitter)?;
        if self.sockets.is_connecting(key) {
            self.set_connect_deadline(id, Instant::now() + CANCEL_AGAIN)?;
        }
        Ok(())
    }

    /// Ends the sending direction of a connection, behind what was given to be sent: the peer gets
    /// the end of the stream. Receiving goes on. [`Event::Done`](crate::Event::Done) tells when.
    ///
    /// # Errors
    ///
    /// A [`DriverError`]: an unknown socket or file, too many operations.
    ///
    /// ```
    /// # use std::io::Read;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (mut peer, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.send(id, bytes::Bytes::from_static(b"all"))?;
    /// driver.shutdown_write(id)?;
    /// # while !matches!(driver.wait_event()?, Event::Done { .. }) {}
    /// let mut text = String::new();
    /// peer.read_to_string(&mut text)?;
    /// assert_eq!(text, "all");
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown_write(&mut self, id: impl SendOn) -> Result<OperationId, DriverError> {
        let file = self.check_room().and_then(|()| self.sending_key(id.any()))?;
        self.begin_nothing(file, Action::ShutDown, 0)
    }

    /// Sets the token of a socket, a file or an operation: a number of the program's, which each
    /// event has. It is 0 otherwise; of an operation without one it is that of its file or socket.
    ///
    /// # Errors
    ///
    /// [`DriverError`]: the id names nothing any more, or is another driver's.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let file = driver.add_file(std::fs::File::options().write(true).open("/dev/null")?)?;
    /// driver.set_token(file, 1)?;
    /// let first = driver.write(file, bytes::Bytes::from_static(b"first"), 0)?;
    /// driver.write(file, bytes::Bytes::from_static(b"second"), 0)?;
    /// driver.set_token(first, 2)?;
    /// let mut tokens = 0;
    /// for _ in 0..2 {
    ///     let Event::Wrote { token, .. } = driver.wait_event()? else { panic!() };
    ///     tokens += token;
    /// }
    /// assert_eq!(tokens, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_token(&mut self, id: impl HasToken, token: u64) -> Result<(), DriverError> {
        match id.any() {
            AnyId::Socket(id) => self.sockets.set_token(id, token, &mut self.files),
            AnyId::File(id) => {
                let key = self.files.key(id)?;
                self.files.get_mut(key).ok_or(DriverError::UnknownFile)?.token = token;
                Ok(())
            }
            AnyId::Operation(id) => self.transfers.set_token(id, token),
        }
    }

    /// Returns the key of the file that is sent on.
    fn sending_key(&mut self, id: AnyId) -> Result<Key, DriverError> {
        match id {
            AnyId::Socket(id) => self.sockets.sending_of(id, &mut self.files),
            AnyId::File(id) => self.files.key(id),
            AnyId::Operation(_) => unreachable!("an operation is not sent on"),
        }
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
        let key = self.files.key(id)?;
        self.files.begin_close(key);
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
    ///         Some(Event::FileClosed { id, .. }) if id == socket => break,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort_file(&mut self, id: FileId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.files.key_to_abort(id)?;
        self.files.abort(key);
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
        self.read_at_most(file, buffer, offset, usize::MAX)
    }

    /// Reads as [`read`](Self::read) does, `len` bytes at most: for what lies among other things.
    ///
    /// # Errors
    ///
    /// As for `read`; on an `O_DIRECT` file `len` must be aligned.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(4, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let file = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
    /// driver.read_at_most(file, arena.allocate()?, 0, 4)?;
    /// let Event::Read { buffer, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(&buffer[..], b"\x7fELF");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_at_most(
        &mut self,
        file: FileId,
        buffer: Buffer,
        offset: u64,
        len: usize,
    ) -> Result<OperationId, SubmitError<Buffer>> {
        if let Err(error) = self.check_read(file, std::slice::from_ref(&buffer), offset, len) {
            return Err(SubmitError { error, memory: buffer });
        }
        self.begin_on(file, Action::Read(len), Memory::Buffer(buffer), offset).map_err(|refused| {
            refused.map(|memory| match memory {
                Memory::Buffer(buffer) => buffer,
                _ => unreachable!("a buffer was given"),
            })
        })
    }

    /// Reads as [`read`](Self::read) does, into the room of several buffers, one after the other.
    ///
    /// [`Event::ReadVectored`](crate::Event::ReadVectored) brings them back. The read uses
    /// registered memory (Linux 6.15) if one entry of the table holds all of the buffers.
    ///
    /// # Errors
    ///
    /// The buffers back, and a [`TransferError`], as for `read`.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(4, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let file = driver.add_file(std::fs::File::open("/proc/self/exe")?)?;
    /// driver.read_vectored(file, vec![arena.allocate()?, arena.allocate()?], 0)?;
    /// let Event::ReadVectored { result, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(result?, 8192);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_vectored(
        &mut self,
        file: FileId,
        buffers: Vec<Buffer>,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Vec<Buffer>>> {
        if let Err(error) = self.check_read(file, &buffers, offset, usize::MAX) {
            return Err(SubmitError { error, memory: buffers });
        }
        let (action, memory) = (Action::Read(usize::MAX), Memory::Buffers(buffers));
        self.begin_on(file, action, memory, offset).map_err(|refused| {
            refused.map(|memory| match memory {
                Memory::Buffers(buffers) => buffers,
                _ => unreachable!("buffers were given"),
            })
        })
    }

    fn check_read(
        &self,
        file: FileId,
        buffers: &[Buffer],
        offset: u64,
        len: usize,
    ) -> Result<(), TransferError> {
        let key = self.files.key(file)?;
        let room = buffers.iter().map(|buffer| buffer.capacity() - buffer.len()).sum::<usize>();
        if room == 0 {
            return Err(TransferError::NoRoom {
                capacity: buffers.iter().map(Buffer::capacity).sum(),
            });
        }
        check_end(offset, room.min(len))?;
        let Some(alignment) = self.files.get(key).and_then(|open| open.direct) else {
            return Ok(());
        };
        let (mut at, mut left) = (offset, len);
        for buffer in buffers {
            let room = (buffer.capacity() - buffer.len()).min(left);
            if room > 0 {
                alignment.check_range(at, room, buffer.as_ptr().addr() + buffer.len())?;
            }
            (at, left) = (at + room as u64, left - room);
        }
        Ok(())
    }

    fn check_write(
        &self,
        file: FileId,
        pieces: &[Payload],
        offset: u64,
    ) -> Result<(), TransferError> {
        let key = self.files.key(file)?;
        check_end(offset, pieces.iter().map(|piece| piece.as_ref().len()).sum())?;
        let Some(alignment) = self.files.get(key).and_then(|open| open.direct) else {
            return Ok(());
        };
        let mut at = offset;
        // Nothing is written from nowhere: there is no address to be aligned.
        for bytes in pieces.iter().map(AsRef::as_ref).filter(|bytes| !bytes.is_empty()) {
            alignment.check_write(bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(())
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
        if let Err(error) = self.check_write(file, std::slice::from_ref(&memory), offset) {
            return Err(SubmitError { error, memory });
        }
        let memory = Memory::Payload(memory);
        self.begin_on(file, Action::Write, memory, offset).map_err(payload_back)
    }

    /// Writes as [`write`](Self::write) does, several pieces one after the other: header and body
    /// as one.
    ///
    /// [`Event::WroteVectored`](crate::Event::WroteVectored) brings them back. The write uses
    /// registered memory (Linux 6.15) if one entry of the table holds all of the pieces.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for `write`; on an `O_DIRECT` file each piece
    /// must be aligned.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let file = driver.add_file(std::fs::File::options().write(true).open("/dev/null")?)?;
    /// let (header, body) = (Bytes::from_static(b"header"), Bytes::from_static(b"body"));
    /// driver.write_vectored(file, [header, body], 0)?;
    /// let Event::WroteVectored { result, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(result?, 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_vectored<P: Into<Payload>>(
        &mut self,
        file: FileId,
        pieces: impl IntoIterator<Item = P>,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Vec<Payload>>> {
        let pieces: Vec<Payload> = pieces.into_iter().map(Into::into).collect();
        if let Err(error) = self.check_write(file, &pieces, offset) {
            return Err(SubmitError { error, memory: pieces });
        }
        let memory = Memory::Pieces(pieces);
        self.begin_on(file, Action::Write, memory, offset).map_err(pieces_back)
    }

    /// Sends a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) on a connected
    /// socket, all of it, behind what was given to be sent before.
    ///
    /// The socket is one that is [received](Self::receive) from, accepted or
    /// [connected](Self::connect); or one that was [added](Self::add_file) to be sent on only.
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
    /// The memory back, and a [`TransferError`]: an unknown socket, one whose connection is over,
    /// too many operations.
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
        socket: impl SendOn,
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
        socket: impl SendOn,
        memory: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let memory = Memory::Payload(memory.into());
        self.begin(socket.any(), Action::Send(options), memory, 0).map_err(payload_back)
    }

    /// Sends as [`send_with`](Self::send_with) does, several pieces one after the other: header and
    /// body as one message.
    ///
    /// [`Event::SentVectored`](crate::Event::SentVectored) brings them back. The send is zero-copy
    /// only if one entry of the table of registered memory holds all of the pieces (Linux 6.15).
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for [`send`](Self::send);
    /// [`TooManyPieces`](TransferError::TooManyPieces) for more than 1024 pieces of one datagram or
    /// message. A stream takes any number.
    ///
    /// ```
    /// # use std::io::Read;
    /// # use bytes::Bytes;
    /// # use uring_arena::{Driver, Event, SendOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// let (header, body) = (Bytes::from_static(b"header "), Bytes::from_static(b"body"));
    /// driver.send_vectored(socket, [header, body], SendOptions::new())?;
    /// let Event::SentVectored { .. } = driver.wait_event()? else { panic!() };
    /// let mut text = [0; 11];
    /// theirs.read_exact(&mut text)?;
    /// assert_eq!(&text, b"header body");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_vectored<P: Into<Payload>>(
        &mut self,
        socket: impl SendOn,
        pieces: impl IntoIterator<Item = P>,
        options: SendOptions,
    ) -> Result<OperationId, SubmitError<Vec<Payload>>> {
        let pieces = Memory::Pieces(pieces.into_iter().map(Into::into).collect());
        self.begin(socket.any(), Action::Send(options), pieces, 0).map_err(pieces_back)
    }

    /// Sends a datagram to a destination: an address, or an
    /// [answer](Destination::reply_to) to a datagram that came.
    ///
    /// [`Event::Sent`](crate::Event::Sent) brings the memory back. Each datagram goes out whole or
    /// not at all; one that fails keeps none from following. Those of an IP socket go out side by
    /// side, as the network has no order either; messages of a Unix socket one after another. On a
    /// connected socket the error may be of an earlier datagram, about which an ICMP message came:
    /// the one that it is told of has not gone out.
    ///
    /// # Errors
    ///
    /// The memory back, and a [`TransferError`], as for [`send`](Self::send).
    ///
    /// ```
    /// # use std::net::UdpSocket;
    /// # use uring_arena::{BufferRing, Destination, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(8, 2048)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// theirs.send_to(b"ping", ours.local_addr()?)?;
    /// let id = driver.receive_datagrams(ring, ours)?;
    /// let Event::Datagram { datagram, .. } = driver.wait_event()? else { panic!() };
    /// let sender = Destination::reply_to(&datagram).ok_or("it has no address")?;
    /// driver.send_to(id, datagram.bytes, sender)?;
    /// let Event::Sent { result, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(result?, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_to(
        &mut self,
        socket: impl SendOn,
        memory: impl Into<Payload>,
        destination: impl Into<Destination>,
    ) -> Result<OperationId, SubmitError<Payload>> {
        let memory = Memory::Addressed(Addressed::new(memory.into(), destination));
        let action = Action::Send(SendOptions::new());
        self.begin(socket.any(), action, memory, 0).map_err(payload_back)
    }

    /// Writes a file's bytes and metadata to the disk (`fsync`): all that was given to be written
    /// before.
    ///
    /// The sync begins when each earlier write of the file is over, and does not wait for later
    /// ones. [`Event::Done`](crate::Event::Done) tells its end. It never says that bytes are
    /// durable which are not:
    ///
    /// * If an earlier write failed or was cancelled, the next sync returns its error, once.
    /// * If a sync fails, the kernel may drop the bytes that it could not write. So each later sync
    ///   of the file fails too, until the program adds the file anew.
    ///
    /// A file that was added more than once, by whichever descriptor, is one file here. Writes by
    /// [`push`](Self::push) are not known to it.
    ///
    /// # Errors
    ///
    /// A [`DriverError`]: an unknown file, too many operations.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// # let path = std::env::temp_dir().join(format!("uring-arena-sync-{}", std::process::id()));
    /// # let created = std::fs::File::create(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// let file = driver.add_file(created)?;
    /// driver.write(file, bytes::Bytes::from_static(b"a record"), 0)?;
    /// let sync = driver.sync_all(file)?;
    /// loop {
    ///     if let Event::Done { id, result, .. } = driver.wait_event()? {
    ///         assert_eq!(id, sync);
    ///         break result?; // the record is on the disk
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sync_all(&mut self, file: FileId) -> Result<OperationId, DriverError> {
        self.sync(file, Extent::All, 0)
    }

    /// Writes a file's bytes to the disk as [`sync_all`](Self::sync_all) does, without metadata
    /// that is not needed to read them (`fdatasync`).
    ///
    /// # Errors
    ///
    /// As for `sync_all`.
    ///
    /// ```
    /// # fn commit(driver: &mut uring_arena::Driver, log: uring_arena::FileId) {
    /// let sync = driver.sync_data(log);
    /// # let _ = sync;
    /// # }
    /// # let _ = commit;
    /// ```
    pub fn sync_data(&mut self, file: FileId) -> Result<OperationId, DriverError> {
        self.sync(file, Extent::Data, 0)
    }

    /// Writes `len` bytes of a file from `offset` on to the disk (`sync_file_range`), or all to the
    /// end if `len` is 0. In order as [`sync_all`](Self::sync_all).
    ///
    /// **No metadata is written, and no write cache of the disk**: bytes of a part that is new to
    /// the file are not durable by this, whatever the result. It is for spreading the work of a
    /// later sync.
    ///
    /// # Errors
    ///
    /// As for `sync_all`.
    ///
    /// ```
    /// # fn spread(driver: &mut uring_arena::Driver, log: uring_arena::FileId) {
    /// let sync = driver.sync_range(log, 0, 1 << 20);
    /// # let _ = sync;
    /// # }
    /// # let _ = spread;
    /// ```
    pub fn sync_range(
        &mut self,
        file: FileId,
        offset: u64,
        len: u32,
    ) -> Result<OperationId, DriverError> {
        self.sync(file, Extent::Range(len), offset)
    }

    fn sync(
        &mut self,
        file: FileId,
        extent: Extent,
        offset: u64,
    ) -> Result<OperationId, DriverError> {
        let key = self.check_room().and_then(|()| self.files.key(file))?;
        self.begin_nothing(key, Action::Sync(extent), offset)
    }

    /// Reserves room on the disk for `len` bytes of a file from `offset` on, and lets the file grow
    /// to hold them (`fallocate`). [`Event::Done`](crate::Event::Done) tells its end.
    ///
    /// Writes that grow a file take turns in the kernel. So a log that is written by several writes
    /// at a time reserves its room before. A later sync waits for it as for a write.
    ///
    /// # Errors
    ///
    /// A [`DriverError`]: an unknown file, too many operations. A full disk, or a file system that
    /// cannot reserve (`EOPNOTSUPP`), is an error of the event.
    ///
    /// ```
    /// # fn grow(driver: &mut uring_arena::Driver, log: uring_arena::FileId) {
    /// let allocation = driver.allocate(log, 0, 64 << 20);
    /// # let _ = allocation;
    /// # }
    /// # let _ = grow;
    /// ```
    pub fn allocate(
        &mut self,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<OperationId, DriverError> {
        let key = self.check_room().and_then(|()| self.files.key(file))?;
        self.begin_nothing(key, Action::Allocate(len), offset)
    }

    fn begin(
        &mut self,
        on: AnyId,
        action: Action,
        memory: Memory,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Memory>> {
        let file = match self.check_room().and_then(|()| self.sending_key(on)) {
            Ok(file) => file,
            Err(error) => return Err(SubmitError::new(error, memory)),
        };
        if let Memory::Pieces(_) = memory
            && let Err(error) = self.check_pieces(file, &memory)
        {
            return Err(SubmitError { error, memory });
        }
        let transfer = Transfer::new(Some(file), action, memory, offset);
        self.transfers.begin(transfer, &mut self.files, &self.arenas, &mut self.submitter)
    }

    /// Checks that pieces for a socket of messages go out as one.
    fn check_pieces(&self, file: Key, memory: &Memory) -> Result<(), TransferError> {
        let (pieces, limit) = (memory.piece_count(), RANGES_MAX);
        if pieces > limit && self.files.get(file).is_some_and(OpenFile::keeps_messages) {
            return Err(TransferError::TooManyPieces { pieces, limit });
        }
        Ok(())
    }

    fn begin_on(
        &mut self,
        file: FileId,
        action: Action,
        memory: Memory,
        offset: u64,
    ) -> Result<OperationId, SubmitError<Memory>> {
        self.begin(AnyId::File(file), action, memory, offset)
    }

    /// Begins an operation without memory.
    fn begin_nothing(
        &mut self,
        file: Key,
        action: Action,
        offset: u64,
    ) -> Result<OperationId, DriverError> {
        let transfer = Transfer::new(Some(file), action, Memory::Nothing, offset);
        let Driver { transfers, files, arenas, submitter, .. } = self;
        let begun = transfers.begin(transfer, files, arenas, submitter);
        begun.map_err(|refused| match refused.error {
            TransferError::Driver(error) => error,
            _ => unreachable!("it has no memory to be refused"),
        })
    }

    /// Gives an operation up at a time, if it is not over by then: its event has
    /// [`TimedOut`](std::io::ErrorKind::TimedOut), and otherwise is as
    /// [cancelled](Self::cancel_operation). A later call sets another time.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownOperation`] if its event was taken; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::io::ErrorKind;
    /// # use std::time::{Duration, Instant};
    /// # use uring_arena::{Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let arena = FixedArena::new(4, 4096)?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let (ours, _silent) = std::os::unix::net::UnixStream::pair()?;
    /// let socket = driver.add_file(ours)?;
    /// let read = driver.read(socket, arena.allocate()?, 0)?;
    /// driver.set_deadline(read, Instant::now() + Duration::from_millis(10))?;
    /// let Event::Read { result, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_deadline(&mut self, id: OperationId, at: Instant) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let key = self.transfers.set_deadline(id, Some(at))?;
        self.have_done(at, Due::Operation(key));
        Ok(())
    }

    /// Has something done at a time.
    fn have_done(&mut self, at: Instant, due: Due) {
        self.timers.push(at, due);
        self.clean_timers();
    }

    /// Has the timers looked at with the next turn, after what is of nothing is removed.
    fn clean_timers(&mut self) {
        let (transfers, sockets) = (&self.transfers, &self.sockets);
        self.timers.clean(|due, at| match due {
            Due::Operation(key) => transfers.has_deadline(key, at),
            Due::Connection(key) => sockets.has_connect_deadline(key, at),
            Due::Timer(_) | Due::Silence(_) => false,
        });
        self.wakeup.request_timers();
    }

    /// Asks the kernel to give an operation up. Its event says what came of it:
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

    /// Makes a timer: [`Event::Timer`](crate::Event::Timer) comes when its time is over, once.
    ///
    /// # Errors
    ///
    /// [`DriverError::TooManyOperations`] for more than 2²⁸ timers;
    /// [`OtherProcess`](DriverError::OtherProcess).
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// driver.timer(Instant::now() + Duration::from_millis(10), 7)?;
    /// let Event::Timer { token: 7, .. } = driver.wait_event()? else { panic!() };
    /// # Ok(())
    /// # }
    /// ```
    pub fn timer(&mut self, at: Instant, token: u64) -> Result<TimerId, DriverError> {
        self.submitter.check_process()?;
        let limit = super::ids::Tag::INDICES;
        let timer = self.timers.add(at, token).ok_or(DriverError::TooManyOperations { limit })?;
        self.clean_timers();
        Ok(timer)
    }

    /// Removes a timer whose time is not over: no event comes.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownTimer`] if its time is over; [`DriverError::OtherDriver`].
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use uring_arena::{Driver, DriverError};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let timer = driver.timer(Instant::now() + Duration::from_secs(60), 7)?;
    /// driver.cancel_timer(timer)?;
    /// assert_eq!(driver.cancel_timer(timer), Err(DriverError::UnknownTimer));
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_timer(&mut self, id: TimerId) -> Result<(), DriverError> {
        self.timers.remove(id)
    }
}

/// Entries of the program's own.
impl Driver {
    /// Pushes an entry of the program's: anything that io_uring can do and the driver has no method
    /// for.
    ///
    /// Each of its completions is an [`Event::Completed`](crate::Event::Completed) with `token`;
    /// the last one is without `IORING_CQE_F_MORE`, the notification of a zero-copy send counted as
    /// one. The driver sets the entry's `user_data`. An entry can be
    /// [cancelled](Self::cancel_operation) and have a [deadline](Self::set_deadline).
    ///
    /// # Errors
    ///
    /// [`DriverError::EntryFlag`] for an entry that is linked, drained, silent, or names a file by
    /// an index; [`EntryGroup`](DriverError::EntryGroup) for one that receives into a ring of the
    /// driver's; [`TooManyOperations`](DriverError::TooManyOperations).
    ///
    /// # Safety
    ///
    /// 1. The memory and the descriptors that the entry names stay valid until its last completion
    ///    was taken as an event. An entry that [`drain`](Self::drain) names in
    ///    [`tokens_left`](crate::DrainReport::tokens_left), or that is under way when the driver is
    ///    dropped, may use them for ever: the program leaks them.
    /// 2. The entry changes no registration of the ring: its tables of files and buffers, its
    ///    buffer groups. It cancels no operation of the driver, and ends no timer of it.
    /// 3. It names no registered buffer and no buffer group but the program's own.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// use io_uring::{opcode, types};
    ///
    /// let old = std::ffi::CString::new("/nonexistent/old")?;
    /// let here = types::Fd(libc::AT_FDCWD);
    /// let entry = opcode::UnlinkAt::new(here, old.as_ptr()).build();
    /// // SAFETY: the name stays until the completion was taken.
    /// unsafe { driver.push(entry, 7)? };
    /// let Event::Completed { token: 7, result, .. } = driver.wait_event()? else { panic!() };
    /// assert_eq!(result, -libc::ENOENT);
    /// # drop(old);
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn push(
        &mut self,
        entry: squeue::Entry,
        token: u64,
    ) -> Result<OperationId, DriverError> {
        // SAFETY: the caller's promise.
        let ids = unsafe { self.push_linked(&[(entry, token)])? };
        Ok(ids[0])
    }

    /// Pushes entries as [`push`](Self::push) does, each linked to the one before
    /// (`IOSQE_IO_LINK`): it begins when that one has succeeded, and is cancelled if it failed or
    /// came short. All of them are pushed, or none.
    ///
    /// # Errors
    ///
    /// As for `push`; [`DriverError::ChainTooLong`] for more entries than the submission queue has.
    ///
    /// # Safety
    ///
    /// As for `push`, for each entry.
    ///
    /// ```
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let nop = io_uring::opcode::Nop::new().build();
    /// // SAFETY: the entries name nothing.
    /// unsafe { driver.push_linked(&[(nop.clone(), 1), (nop, 2)])? };
    /// for expected in [1, 2] {
    ///     let Event::Completed { token, .. } = driver.wait_event()? else { panic!() };
    ///     assert_eq!(token, expected);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn push_linked(
        &mut self,
        entries: &[(squeue::Entry, u64)],
    ) -> Result<Vec<OperationId>, DriverError> {
        self.check_room_for(entries.len())?;
        for (entry, _) in entries {
            if let Some(group) = check_entry(entry)?
                && self.rings.has_group(group)
            {
                return Err(DriverError::EntryGroup { group });
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.transfers.push_entries(entries, &mut self.submitter) }
    }
}

fn payload_back(refused: SubmitError<Memory>) -> SubmitError<Payload> {
    refused.map(|memory| match memory {
        Memory::Payload(payload) => payload,
        Memory::Addressed(addressed) => addressed.into_memory(),
        _ => unreachable!("a payload was given"),
    })
}

fn pieces_back(refused: SubmitError<Memory>) -> SubmitError<Vec<Payload>> {
    refused.map(|memory| match memory {
        Memory::Pieces(pieces) => pieces,
        _ => unreachable!("pieces were given"),
    })
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
