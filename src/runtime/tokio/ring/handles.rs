//! The parts that streams, halves and files have of an engine on a ring.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;
use bytes::Bytes;
use tracing::Span;

use super::mailbox::{Command, EngineHandle, FileKey, Place, Receive};
use super::stream_queue::StreamQueue;
use crate::buffer::{Buffer, Payload};
use crate::runtime::tokio::send_queue::{SendQueue, connection_span, trace_received};
use crate::runtime::tokio::socket::{Convert, Link, Socket, StreamError};
use crate::sync::Arc;
use crate::system::SendOptions;

/// Takes a connection: the parts of its stream and of its half.
#[allow(clippy::result_large_err, reason = "the error gives the socket back")]
pub(crate) fn connect<S: Socket>(
    engine: &Arc<EngineHandle>,
    socket: S,
    messages_max: usize,
    send_bytes_max: usize,
) -> Result<(RingSource, RingSender), StreamError<S>> {
    let place = match engine.take_place() {
        Ok(place) => place,
        Err(error) => return Err(StreamError::new(error.into(), socket)),
    };
    let clone = socket.as_fd().try_clone_to_owned();
    let half = clone.and_then(|clone| RingSender::new(Arc::clone(engine), clone, send_bytes_max));
    let half = match half {
        Ok(half) => half,
        Err(error) => return Err(StreamError::new(error, socket)),
    };
    let socket = match Convert::into_fd(socket) {
        Ok(socket) => socket,
        Err(refused) => {
            half.queue.detach();
            return Err(refused);
        }
    };
    let engine = Arc::clone(engine);
    Ok((RingSource::new(engine, socket, place, messages_max, Some(&half)), half))
}

/// Takes a socket to receive from.
pub(crate) fn receive(
    engine: &Arc<EngineHandle>,
    socket: impl Socket,
    messages_max: usize,
) -> io::Result<RingSource> {
    let place = engine.take_place()?;
    let socket = Convert::into_fd(socket)?;
    Ok(RingSource::new(Arc::clone(engine), socket, place, messages_max, None))
}

/// A socket that a driver receives from.
pub(crate) struct RingSource {
    queue: Arc<StreamQueue>,
    engine: Arc<EngineHandle>,
    span: Span,
    /// The slots of the messages that were taken out last: unread until all are handed out.
    held: usize,
    is_over: bool,
}

impl RingSource {
    /// Gives a socket to a driver, with the half that may send on it.
    fn new(
        engine: Arc<EngineHandle>,
        socket: OwnedFd,
        place: Place,
        messages_max: usize,
        half: Option<&RingSender>,
    ) -> RingSource {
        let span = match half {
            Some(half) => half.queue.span().clone(),
            None => connection_span(socket.as_fd()),
        };
        let reset = half.map(|half| half.queue.known_reset().clone()).unwrap_or_default();
        let queue = Arc::new(StreamQueue::new(messages_max, engine.share(), reset));
        let stream = Arc::clone(&queue);
        let half = half.map(|half| (half.key, Arc::clone(&half.queue)));
        engine.post(Command::Receive(Receive { socket, stream, half, place }));
        RingSource { queue, engine, span, held: 0, is_over: false }
    }

    /// Returns whether the half is of the same connection.
    pub(crate) fn is_of(&self, half: &SendQueue) -> bool {
        self.queue.known_reset().is_same(half.known_reset())
    }

    /// Has the driver let go of the socket, and adds the messages that nobody has taken.
    pub(crate) async fn give_back(&mut self, taken: &mut VecDeque<Bytes>) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        self.engine.ask(|answer| Command::GiveBack { queue, answer }).await?;
        self.is_over = true;
        taken.extend(self.queue.take_arrived());
        Ok(())
    }

    /// Waits for messages, and takes all that are there. There are none at the end.
    pub(crate) fn poll_messages(
        &mut self,
        taken: &mut VecDeque<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.engine.here()?;
        // Those that were taken out before are handed out.
        self.queue.hand_out(std::mem::take(&mut self.held));
        let polled = ready!(self.queue.poll_take(taken, context));
        self.is_over = taken.is_empty();
        trace_received(&self.span, polled.as_ref().map(|_| taken.iter().map(Bytes::len).sum()));
        let messages = polled?;
        self.held = messages.slots;
        if messages.must_resume {
            self.engine.post(Command::Resume { queue: Arc::clone(&self.queue) });
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RingSource {
    fn drop(&mut self) {
        if self.engine.here().is_err() {
            return std::mem::forget(Arc::clone(&self.queue));
        }
        self.queue.hand_out(self.held);
        self.queue.abandon();
        if !self.is_over {
            self.engine.post(Command::Close { queue: Arc::clone(&self.queue) });
        }
    }
}

/// A connection whose sends go to a driver.
pub(crate) struct RingSender {
    /// The queue's descriptor, watched for writing only: arriving bytes wake no task. `None` once
    /// the half is dropped.
    watched: Option<AsyncFd<Watched>>,
    queue: Arc<SendQueue>,
    engine: Arc<EngineHandle>,
    key: FileKey,
}

/// The queue of a half, as the descriptor that tokio watches.
struct Watched(Arc<SendQueue>);

impl Watched {
    fn socket(&self) -> &TcpStream {
        match self.0.socket() {
            Link::Own(socket) => socket,
            Link::Watched(_) => unreachable!("a driver sends from a descriptor of its own"),
        }
    }
}

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

impl RingSender {
    fn new(engine: Arc<EngineHandle>, socket: OwnedFd, bytes_max: usize) -> io::Result<RingSender> {
        let queue = Arc::new(SendQueue::new(Link::own(socket), bytes_max));
        queue.answer_stream();
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let watched = AsyncFd::with_interest(Watched(Arc::clone(&queue)), Interest::WRITABLE)?;
        let key = engine.register(&queue, &Handle::current());
        Ok(RingSender { watched: Some(watched), queue, engine, key })
    }

    /// Queues a send, for which room of `reserved` was taken, and tells the engine.
    pub(crate) fn push(
        &self,
        payload: Payload,
        options: SendOptions,
        reserved: usize,
    ) -> io::Result<()> {
        if self.queue.push(payload, options, reserved)? {
            self.engine.post(Command::Send { key: self.key });
        }
        Ok(())
    }

    /// Fails in a forked child of the pool's process.
    #[inline]
    pub(crate) fn here(&self) -> io::Result<()> {
        Ok(self.engine.here()?)
    }

    pub(crate) fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// Writes one or several pieces, once the socket takes bytes.
    pub(crate) fn poll_write(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces.is_empty() {
            true => self.poll_write_by(context, |socket| socket.write(bytes)),
            false => self.poll_write_by(context, |socket| socket.write_vectored(pieces)),
        }
    }

    /// Writes by `write` once the socket takes bytes.
    fn poll_write_by(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut &TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let watched = self.watched.as_ref().expect("there until the drop");
        loop {
            let mut ready = ready!(watched.poll_write_ready(context))?;
            match ready.try_io(|watched| write(&mut watched.get_ref().socket())) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

impl Drop for RingSender {
    fn drop(&mut self) {
        if self.engine.here().is_err() {
            // tokio's watch and the connection are the parent's, and so are the locks.
            std::mem::forget((self.watched.take(), Arc::clone(&self.queue)));
            return;
        }
        self.queue.release();
        self.engine.release(self.key);
    }
}

/// A file that a driver has.
pub(crate) struct RingFile {
    key: FileKey,
    engine: Arc<EngineHandle>,
}

impl RingFile {
    pub(crate) fn new(engine: &Arc<EngineHandle>, file: OwnedFd) -> RingFile {
        RingFile { key: engine.open(file), engine: Arc::clone(engine) }
    }

    pub(crate) async fn read_at(&self, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let key = self.key;
        self.engine.ask(|answer| Command::Read { key, buffer, offset, answer }).await
    }

    pub(crate) async fn write_at(&self, payload: Payload, offset: u64) -> io::Result<()> {
        let key = self.key;
        self.engine.ask(|answer| Command::Write { key, payload, offset, answer }).await
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let key = self.key;
        self.engine.ask(|answer| Command::SyncData { key, answer }).await
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.engine.close(self.key);
    }
}
