//! A datagram socket of a pool: receiving into slots, and sending from where memory lies.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use ::tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use ::tokio::task::coop::poll_proceed;
use bytes::Bytes;

use super::engine::Engine;
use super::pool::{Pool, Server};
use super::readiness::{DatagramLink, ReceivingDatagrams};
use super::ring::{Command, DatagramCommand, EngineHandle, Outgoing, Place, StreamQueue};
use super::send_queue::Reset;
use super::socket::StreamError;
use super::socket::datagram::{ConvertDatagrams, DatagramSocket, check_type, local_address};
use crate::buffer::Payload;
use crate::sync::Arc;
use crate::uring::{Addressed, Datagram, DatagramDetails, Destination, is_of_ip};

/// The bytes of the longest datagram, or of the most that are sent as one (`UDP_SEGMENT`) or come
/// as one (`UDP_GRO`).
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// The bytes that the shortest datagram counts for, because its place in the queue takes memory.
const COST_MIN: usize = 64;

/// A datagram socket of a [`Pool`](super::Pool), in place of tokio's `UdpSocket` or `UnixDatagram`.
///
/// Each [`Datagram`] that comes lies in a slot, with the address of its sender. An IP socket is
/// asked for the address that a datagram was sent to ([`Datagram::to`]) and for its mark of
/// congestion ([`Datagram::ecn`]). If a slot has room for 64 KiB, several datagrams of one sender
/// may come as one ([`Datagram::segment_bytes`]). A longer datagram than a slot has room for is
/// cut, and says so.
///
/// Any task may send, by a clone of the [`sender`](Self::sender). The socket is closed when this
/// and all senders are dropped, behind what is to be sent.
///
/// ```
/// use tokio::net::UdpSocket;
/// use uring_arena::{Destination, FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
/// let socket = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.connect(socket.local_addr()?).await?;
/// let mut datagrams = pool.datagrams(socket)?;
///
/// client.send(b"ping").await?;
/// let question = datagrams.recv().await?;
/// assert_eq!(question.bytes, "ping");
/// assert_eq!(question.from, Some(client.local_addr()?));
/// // From the address that was asked, and without a copy.
/// let destination = Destination::reply_to(&question).ok_or("it has no address")?;
/// datagrams.send_to(question.bytes, destination).await?;
/// let mut answer = [0; 8];
/// assert_eq!(client.recv(&mut answer).await?, 4);
/// # Ok(())
/// # }
/// ```
pub struct Datagrams {
    receiving: Receiving,
    /// Datagrams that were received, and not handed out yet.
    taken: VecDeque<Datagram<Bytes>>,
    sender: DatagramSender,
}

/// The engine that receives.
enum Receiving {
    Ring(RingReceiving),
    Readiness(Box<ReceivingDatagrams>),
}

/// The sending side of a datagram socket of a [`Pool`](super::Pool). Clones share it.
///
/// ```
/// use bytes::Bytes;
/// use tokio::net::UdpSocket;
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
/// let peer = UdpSocket::bind("127.0.0.1:0").await?;
/// let to = peer.local_addr()?;
/// let sender = pool.datagrams(UdpSocket::bind("127.0.0.1:0").await?)?.sender().clone();
/// let sending = tokio::spawn(async move { sender.send_to(Bytes::from_static(b"hi"), to).await });
/// sending.await??;
/// assert_eq!(peer.recv(&mut [0; 8]).await?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DatagramSender(Sending);

/// The engine that sends.
#[derive(Clone)]
enum Sending {
    Ring(Arc<RingLink>),
    Readiness(Arc<DatagramLink>),
}

/// A datagram socket that a driver has, as its two sides share it.
struct RingLink {
    engine: Arc<EngineHandle>,
    queue: Arc<StreamQueue<Datagram<Bytes>>>,
    /// A clone of the socket, for questions about it.
    socket: OwnedFd,
    /// The room among what is to be sent, in bytes.
    room: std::sync::Arc<Semaphore>,
    room_max: usize,
    _counted: Arc<()>,
}

impl RingLink {
    /// Puts a command into the engine's mailbox.
    fn post(&self, command: DatagramCommand) {
        self.engine.post(Command::Datagrams { command, place: None });
    }

    /// Returns the room that a datagram of `bytes` takes: all of it for one that is larger.
    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.max(COST_MIN).min(self.room_max)).unwrap_or(u32::MAX)
    }

    /// Waits for the room of a datagram, behind those who asked before.
    async fn room(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        self.engine.check_open()?;
        let room = std::sync::Arc::clone(&self.room).acquire_many_owned(self.cost(bytes));
        Ok(room.await.expect("nobody closes it"))
    }

    /// Waits for room, and gives a datagram to the engine. Returns what tells its result.
    async fn queue(
        &self,
        payload: Payload,
        destination: Destination,
    ) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let room = self.room(payload.as_ref().len()).await?;
        let (answer, result) = oneshot::channel();
        self.push(payload, destination, Some(answer), room);
        Ok(result)
    }

    fn push(
        &self,
        payload: Payload,
        destination: Destination,
        answer: Option<oneshot::Sender<io::Result<()>>>,
        room: OwnedSemaphorePermit,
    ) {
        let outgoing = Box::new(Outgoing { payload, destination, answer, room });
        self.post(DatagramCommand::Send { queue: Arc::clone(&self.queue), outgoing });
    }

    /// Waits until a datagram is out.
    async fn sent(&self, result: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        match result.await {
            Ok(result) => result,
            Err(_) => Err(self.engine.end_error()),
        }
    }

    fn try_send(&self, bytes: &[u8], destination: Destination) -> io::Result<()> {
        self.engine.check_open()?;
        let room = std::sync::Arc::clone(&self.room).try_acquire_many_owned(self.cost(bytes.len()));
        let room = room.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        self.push(self.engine.send_memory().copy(bytes), destination, None, room);
        Ok(())
    }
}

impl Drop for RingLink {
    fn drop(&mut self) {
        if self.engine.here().is_err() {
            // Its datagrams and wakers are the parent's.
            return std::mem::forget(Arc::clone(&self.queue));
        }
        self.post(DatagramCommand::Close { queue: Arc::clone(&self.queue) });
    }
}

/// The receiving side of a datagram socket that a driver has.
struct RingReceiving {
    link: Arc<RingLink>,
    /// The slots of the datagrams that were taken out last: unread until all are handed out.
    held: usize,
}

impl RingReceiving {
    /// Waits for datagrams, and takes all that are there.
    fn poll_datagrams(
        &mut self,
        taken: &mut VecDeque<Datagram<Bytes>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let RingLink { engine, queue, .. } = &*self.link;
        engine.here()?;
        // Those that were taken out before are handed out.
        queue.hand_out(std::mem::take(&mut self.held));
        let messages = ready!(queue.poll_take(taken, context))?;
        if taken.is_empty() {
            // The end was told before.
            return Poll::Ready(Err(engine.end_error()));
        }
        self.held = messages.slots;
        if messages.must_resume {
            self.link.post(DatagramCommand::Resume { queue: Arc::clone(queue) });
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RingReceiving {
    fn drop(&mut self) {
        if self.link.engine.here().is_err() {
            return;
        }
        self.link.queue.hand_out(self.held);
        self.link.queue.abandon();
        self.link.post(DatagramCommand::Pause { queue: Arc::clone(&self.link.queue) });
    }
}

/// Bytes of a slot in front of a datagram that a ring receives.
const DETAILS_BYTES: usize = 304;

/// Datagram sockets.
impl Pool {
    /// Takes a datagram socket: receives each datagram into a slot, and sends.
    ///
    /// The example of [`Datagrams`] shows it. The socket becomes non-blocking, also for its clones.
    /// On a ring a slot also holds a header of 304 bytes.
    ///
    /// # Errors
    ///
    /// [`StreamError`] with the socket: the descriptor is no datagram socket, there is no tokio
    /// runtime here, or the pool's ring has no room for it (as for [`stream`](Self::stream)) or
    /// cannot receive datagrams: its slots are too small, or shared by messages; Linux before 6.0.
    #[allow(clippy::result_large_err, reason = "the error gives the socket back")]
    pub fn datagrams<S: DatagramSocket>(&self, socket: S) -> Result<Datagrams, StreamError<S>> {
        self.datagrams_on(self.engines.choice.connections, socket)
    }

    /// Takes a datagram socket as [`datagrams`](Self::datagrams) does, on an engine of its own.
    ///
    /// ```
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::{Engine, Pool}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// let to = socket.local_addr()?;
    /// let mut datagrams = pool.datagrams_on(Engine::Readiness, socket)?;
    /// UdpSocket::bind("127.0.0.1:0").await?.send_to(b"ping", to).await?;
    /// assert_eq!(datagrams.recv().await?.bytes, "ping");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for `datagrams`. [`Unsupported`](io::ErrorKind::Unsupported) if the pool has no ring and
    /// cannot start one.
    #[allow(clippy::result_large_err, reason = "the error gives the socket back")]
    pub fn datagrams_on<S: DatagramSocket>(
        &self,
        engine: Engine,
        socket: S,
    ) -> Result<Datagrams, StreamError<S>> {
        let slot_bytes = self.arena().slot_capacity();
        let ring = match self.server(engine) {
            Ok(Server::Ring(ring)) => ring,
            Ok(Server::Runtime(runtime)) => {
                let shared = self.engines.readiness.shared();
                if let Err(error) = shared.here().and_then(|()| prepare(socket.as_fd(), slot_bytes))
                {
                    return Err(StreamError::new(error, socket));
                }
                let watched = socket.into_watched()?.0;
                return Ok(Datagrams::by_readiness(DatagramLink::new(shared, watched, runtime)));
            }
            Err(error) => return Err(StreamError::new(error, socket)),
        };
        // A header lies in front of the bytes.
        let prepared = prepare(socket.as_fd(), slot_bytes.saturating_sub(DETAILS_BYTES));
        let clone = prepared.and_then(|()| socket.as_fd().try_clone_to_owned());
        let clone = match clone {
            Ok(clone) => clone,
            Err(error) => return Err(StreamError::new(error, socket)),
        };
        let place = match ring.take_datagram_place() {
            Ok(place) => place,
            Err(error) => return Err(StreamError::new(error.into(), socket)),
        };
        let socket = ConvertDatagrams::into_fd(socket)?;
        let ring = Arc::clone(ring);
        let (messages_max, send_bytes_max) = (self.messages_max, self.send_bytes_max);
        Ok(Datagrams::on_ring(ring, (socket, clone), place, messages_max, send_bytes_max))
    }
}

/// Checks a socket that a pool is to take, and asks it for the details of its datagrams.
///
/// Details that the kernel or the socket does not have are left out.
fn prepare(socket: BorrowedFd<'_>, slot_bytes: usize) -> io::Result<()> {
    check_type(socket)?;
    if !is_of_ip(socket) {
        return Ok(());
    }
    let details = DatagramDetails::new();
    let mut wanted = vec![details.destination(), details.ecn()];
    if slot_bytes >= DATAGRAM_BYTES_MAX {
        wanted.push(details.segments());
    }
    for details in wanted {
        if let Err(error) = details.enable(&socket) {
            tracing::debug!(%error, ?details, "a socket does not tell these details");
        }
    }
    Ok(())
}

impl Datagrams {
    /// Has the engine receive from a socket, and keeps a clone of it.
    fn on_ring(
        engine: Arc<EngineHandle>,
        (socket, clone): (OwnedFd, OwnedFd),
        place: Place,
        messages_max: usize,
        send_bytes_max: usize,
    ) -> Datagrams {
        let queue = Arc::new(StreamQueue::new(messages_max, engine.share(), Reset::default()));
        let room_max = send_bytes_max.clamp(1, u32::MAX as usize >> 4);
        let room = std::sync::Arc::new(Semaphore::new(room_max));
        let counted = engine.datagram_socket();
        let command = DatagramCommand::Open { socket, queue: Arc::clone(&queue) };
        engine.post(Command::Datagrams { command, place: Some(place) });
        let socket = clone;
        let link = RingLink { engine, queue, socket, room, room_max, _counted: counted };
        let link = Arc::new(link);
        Datagrams {
            receiving: Receiving::Ring(RingReceiving { link: Arc::clone(&link), held: 0 }),
            taken: VecDeque::new(),
            sender: DatagramSender(Sending::Ring(link)),
        }
    }

    fn by_readiness(link: DatagramLink) -> Datagrams {
        let link = Arc::new(link);
        let receiving = Box::new(ReceivingDatagrams::new(Arc::clone(&link)));
        Datagrams {
            receiving: Receiving::Readiness(receiving),
            taken: VecDeque::new(),
            sender: DatagramSender(Sending::Readiness(link)),
        }
    }

    /// Waits until some datagrams are taken: `limit` at most where the engine is asked for a
    /// number. With `keeps` those behind the first are handed out later.
    fn poll_fill(
        &mut self,
        limit: usize,
        keeps: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let budget = match &mut self.receiving {
            // Takes part in the budget of the task.
            Receiving::Readiness(receiving) if self.taken.is_empty() => {
                return receiving.poll_receive(&mut self.taken, limit, keeps, context);
            }
            Receiving::Ring(receiving) if self.taken.is_empty() => {
                let budget = ready!(poll_proceed(context));
                ready!(receiving.poll_datagrams(&mut self.taken, context))?;
                budget
            }
            _ => ready!(poll_proceed(context)),
        };
        budget.made_progress();
        Poll::Ready(Ok(()))
    }

    /// Polls for the next datagram as [`recv`](Self::recv) does.
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// let to = socket.local_addr()?;
    /// let mut datagrams = pool.datagrams(socket)?;
    /// UdpSocket::bind("127.0.0.1:0").await?.send_to(b"ping", to).await?;
    /// let datagram = poll_fn(|context| datagrams.poll_recv(context)).await?;
    /// assert_eq!(datagram.bytes, "ping");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Datagram<Bytes>>> {
        loop {
            ready!(self.poll_fill(usize::MAX, true, context))?;
            // There is at least one now.
            if let Some(datagram) = self.taken.pop_front() {
                return Poll::Ready(Ok(datagram));
            }
        }
    }

    /// Waits for the next datagram. It may be empty.
    ///
    /// Dropping the future loses nothing. The pending errors of the socket (ICMP: port or host
    /// unreachable, message too long, and so on) do not end it: they are of single datagrams that
    /// were sent. The example of [`Datagrams`] shows it.
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down, or its runtime has
    /// ended; otherwise an error of the socket that stays.
    pub async fn recv(&mut self) -> io::Result<Datagram<Bytes>> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// Polls for datagrams as [`recv_many`](Self::recv_many) does.
    ///
    /// The example of [`poll_recv`](Self::poll_recv) shows how to await it.
    ///
    /// # Errors
    ///
    /// As for `recv_many`.
    pub fn poll_recv_many(
        &mut self,
        context: &mut Context<'_>,
        datagrams: &mut Vec<Datagram<Bytes>>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        if limit == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_fill(limit, false, context))?;
        let count = self.taken.len().min(limit);
        datagrams.extend(self.taken.drain(..count));
        Poll::Ready(Ok(count))
    }

    /// Waits for datagrams, and appends up to `limit` of them to `datagrams`. Returns their number,
    /// which is 0 only if `limit` is.
    ///
    /// As long as more than one wait, one system call brings several. Dropping the future loses
    /// nothing.
    ///
    /// ```
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let socket = UdpSocket::bind("127.0.0.1:0").await?;
    /// let to = socket.local_addr()?;
    /// let mut datagrams = pool.datagrams(socket)?;
    /// let client = UdpSocket::bind("127.0.0.1:0").await?;
    /// for text in ["one", "two", "three"] {
    ///     client.send_to(text.as_bytes(), to).await?;
    /// }
    /// let mut batch = Vec::new();
    /// while batch.len() < 3 {
    ///     datagrams.recv_many(&mut batch, 32).await?;
    /// }
    /// assert_eq!(batch[2].bytes, "three");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv).
    pub async fn recv_many(
        &mut self,
        datagrams: &mut Vec<Datagram<Bytes>>,
        limit: usize,
    ) -> io::Result<usize> {
        poll_fn(|context| self.poll_recv_many(context, datagrams, limit)).await
    }

    /// Sends a datagram: see [`DatagramSender::send_to`].
    ///
    /// The example of [`Datagrams`] shows it.
    ///
    /// # Errors
    ///
    /// As for `DatagramSender::send_to`.
    pub async fn send_to(
        &self,
        memory: impl Into<Payload>,
        destination: impl Into<Destination>,
    ) -> io::Result<()> {
        self.sender.send_to(memory, destination).await
    }

    /// Returns the sending side, whose clones other tasks may use.
    ///
    /// The example of [`DatagramSender`] shows it.
    pub fn sender(&self) -> &DatagramSender {
        &self.sender
    }

    /// Returns the address that the socket is bound to. For IP.
    ///
    /// ```
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let datagrams = pool.datagrams(UdpSocket::bind("127.0.0.1:0").await?)?;
    /// assert!(datagrams.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// That of getsockname(2). [`InvalidInput`](io::ErrorKind::InvalidInput) for a Unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_address(self.as_fd())
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}

impl DatagramSender {
    /// Sends a datagram from where its memory lies: to an address, or as an
    /// [answer](Destination::reply_to) to one that came. Ready when the kernel has taken it.
    ///
    /// A [`Destination`] also chooses the address to send from, a mark of congestion, and
    /// [segments](Destination::segments): one block of a buddy arena is sent as many datagrams by
    /// one call. A datagram goes out whole or not at all. Of several that are sent at once by tasks
    /// of their own, the order is the network's.
    ///
    /// A future that is dropped has sent the datagram or not. The examples of [`DatagramSender`]
    /// and [`Datagrams`] show it.
    ///
    /// # Errors
    ///
    /// The kernel's error, [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down. The
    /// next datagram may go out all the same. On a connected socket the error may be of an earlier
    /// datagram that did not arrive (ICMP); this one is not sent then.
    pub async fn send_to(
        &self,
        memory: impl Into<Payload>,
        destination: impl Into<Destination>,
    ) -> io::Result<()> {
        let (payload, destination) = (memory.into(), destination.into());
        // A task that only sends keeps no other from running.
        poll_fn(|context| poll_proceed(context).map(|budget| budget.made_progress())).await;
        match &self.0 {
            Sending::Readiness(link) => link.send(payload.as_ref(), &destination).await,
            Sending::Ring(link) => {
                let result = link.queue(payload, destination).await?;
                link.sent(result).await
            }
        }
    }

    /// Sends several datagrams, by fewer system calls. Returns a result for each, in their order:
    /// one that fails keeps none from following.
    ///
    /// A future that is dropped has sent some of them.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let datagrams = pool.datagrams(UdpSocket::bind("127.0.0.1:0").await?)?;
    /// let peer = UdpSocket::bind("127.0.0.1:0").await?;
    /// let to = peer.local_addr()?;
    /// let batch = ["one", "two"].map(|text| (Bytes::from_static(text.as_bytes()), to));
    /// for result in datagrams.sender().send_many(batch).await {
    ///     result?;
    /// }
    /// for _ in 0..2 {
    ///     assert_eq!(peer.recv(&mut [0; 8]).await?, 3);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Each as for [`send_to`](Self::send_to).
    pub async fn send_many<P: Into<Payload>, D: Into<Destination>>(
        &self,
        datagrams: impl IntoIterator<Item = (P, D)>,
    ) -> Vec<io::Result<()>> {
        let datagrams = datagrams.into_iter().map(|(memory, to)| (memory.into(), to.into()));
        let datagrams: Vec<(Payload, Destination)> = datagrams.collect();
        poll_fn(|context| poll_proceed(context).map(|budget| budget.made_progress())).await;
        let link = match &self.0 {
            Sending::Readiness(link) => {
                let addressed = datagrams.into_iter().map(|(it, to)| Addressed::new(it, to));
                return link.send_all(addressed.collect()).await;
            }
            Sending::Ring(link) => link,
        };
        let mut queued = Vec::with_capacity(datagrams.len());
        for (payload, destination) in datagrams {
            queued.push(link.queue(payload, destination).await);
        }
        let mut results = Vec::with_capacity(queued.len());
        for queued in queued {
            results.push(match queued {
                Ok(result) => link.sent(result).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Sends a datagram of bytes that are only lent, if it can go out now. Never waits.
    ///
    /// By tokio's reactor the kernel reads the bytes where they are. A ring sends a copy, and its
    /// error is only logged.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use tokio::net::UdpSocket;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(64, 2048)?)?;
    /// let datagrams = pool.datagrams(UdpSocket::bind("127.0.0.1:0").await?)?;
    /// let peer = UdpSocket::bind("127.0.0.1:0").await?;
    /// let sender = datagrams.sender();
    /// loop {
    ///     sender.writable().await?;
    ///     match sender.try_send_to(b"hello", peer.local_addr()?) {
    ///         Err(error) if error.kind() == ErrorKind::WouldBlock => {}
    ///         sent => break sent?,
    ///     }
    /// }
    /// assert_eq!(peer.recv(&mut [0; 8]).await?, 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if [`writable`](Self::writable) has to be awaited
    /// first; otherwise as for [`send_to`](Self::send_to).
    pub fn try_send_to(&self, bytes: &[u8], destination: impl Into<Destination>) -> io::Result<()> {
        match &self.0 {
            Sending::Readiness(link) => link.try_send(bytes, &destination.into()),
            Sending::Ring(link) => link.try_send(bytes, destination.into()),
        }
    }

    /// Waits until a datagram may go out. Others may be faster then.
    ///
    /// The example of [`try_send_to`](Self::try_send_to) shows it.
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down, or its runtime has
    /// ended.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.0 {
            Sending::Readiness(link) => link.writable().await,
            // Room for the longest one: a shorter wait could be in vain.
            Sending::Ring(link) => link.room(DATAGRAM_BYTES_MAX).await.map(drop),
        }
    }
}

impl AsFd for DatagramSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Sending::Ring(link) => link.socket.as_fd(),
            Sending::Readiness(link) => link.as_fd(),
        }
    }
}

impl fmt::Debug for DatagramSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSender").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}
