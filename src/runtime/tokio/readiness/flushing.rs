//! Sending what a connection has queued: at once what the socket takes, and the rest by a task.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::connection::{Connection, is_passing};
use crate::buffer::Payload;
use crate::runtime::tokio::engine::EngineEnd;
use crate::runtime::tokio::send_queue::{QueuedSend, drop_contained};
use crate::sync::Arc;
use crate::uring::SendOptions;

/// The most sends that go out by one call.
const SENDS_MAX: usize = 64;

/// The calls that a task that queues a send makes for the others at most.
const ROUNDS: usize = 16;

/// The sends of a connection that go out next. There is one value a connection at a time: the
/// queue's `is_attended` sees to that.
struct Flushing {
    connection: Arc<Connection>,
    first: Option<QueuedSend>,
    others: VecDeque<QueuedSend>,
    /// The bytes of the first send that are out.
    sent: usize,
    is_done: bool,
    /// A shutdown of the pool waits until the memory of the sends is free.
    _operation: Arc<()>,
}

/// The reason why no more goes out for now.
enum Stop {
    /// Nothing is left.
    Done,
    /// The socket takes no more.
    Full,
    /// Others may run first.
    Yield,
}

/// Queues a send, for which room of `reserved` was taken, and sends what the socket takes. A task
/// goes on with the rest.
pub(crate) fn send(
    connection: &Arc<Connection>,
    payload: Payload,
    options: SendOptions,
    reserved: usize,
) -> io::Result<()> {
    if connection.queue().push(payload, options, reserved)? {
        Flushing::begin(connection);
    }
    Ok(())
}

impl Flushing {
    /// Sends what the socket takes. A task of the connection's runtime goes on with the rest.
    fn begin(connection: &Arc<Connection>) {
        let mut flushing = Flushing {
            connection: Arc::clone(connection),
            first: None,
            others: VecDeque::new(),
            sent: 0,
            is_done: false,
            _operation: connection.shared().operation(),
        };
        let socket = connection.socket();
        match flushing
            .send(|pieces| write_to(pieces, |b| socket.write(b), |p| socket.write_vectored(p)))
        {
            Stop::Done => flushing.is_done = true,
            Stop::Full | Stop::Yield => drop(connection.runtime().spawn(flushing)),
        }
    }

    /// Sends until nothing is left, or `write` takes no more.
    fn send(&mut self, mut write: impl FnMut(&Flushing) -> io::Result<usize>) -> Stop {
        for _ in 0..ROUNDS {
            if !self.fill() {
                return Stop::Done;
            }
            match write(self) {
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_passing(&error) => return Stop::Full,
                Err(error) => {
                    self.connection.queue().fail(&error);
                    self.drop_all();
                    return Stop::Done;
                }
            }
        }
        Stop::Yield
    }

    /// Takes sends out of the queue. Returns `false` if there are none: the next one begins anew.
    fn fill(&mut self) -> bool {
        let queue = self.connection.queue();
        if self.first.is_none() {
            self.first = queue.next();
            if self.first.is_none() {
                return false;
            }
        }
        while self.others.len() + 1 < SENDS_MAX
            && let Some(send) = queue.next_behind()
        {
            self.others.push_back(send);
        }
        true
    }

    /// Notes that the next `bytes` bytes are out.
    fn advance(&mut self, mut bytes: usize) {
        while let Some(first) = &self.first {
            let left = first.payload.as_ref().len() - self.sent;
            if bytes < left {
                self.sent += bytes;
                return;
            }
            bytes -= left;
            self.sent = 0;
            let QueuedSend { number, payload, .. } =
                std::mem::replace(&mut self.first, self.others.pop_front()).expect("looked at");
            drop_contained(payload);
            self.connection.queue().sent(number);
        }
    }

    fn drop_all(&mut self) {
        self.first.take().into_iter().chain(self.others.drain(..)).for_each(drop_contained);
    }

    /// Gives what is left a last moment, because the runtime ends. The reactor tells nothing any
    /// more.
    fn send_last(&mut self) {
        let connection = Arc::clone(&self.connection);
        let until = connection.shared().last_moment(connection.runtime().id());
        let Ok(socket) = connection.queue().as_fd().try_clone_to_owned() else { return };
        let mut socket = TcpStream::from(socket);
        loop {
            let first = |flushing: &Flushing| {
                let bytes = flushing.first.as_ref().expect("filled").payload.as_ref();
                (&socket).write(&bytes[flushing.sent..])
            };
            match self.send(first) {
                Stop::Done => break,
                Stop::Yield => {}
                Stop::Full if Instant::now() >= until => break,
                Stop::Full => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let _ = socket.flush();
    }
}

/// Writes the next bytes: of one send, or of several at once.
fn write_to(
    flushing: &Flushing,
    one: impl FnOnce(&[u8]) -> io::Result<usize>,
    several: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let first = &flushing.first.as_ref().expect("filled").payload.as_ref()[flushing.sent..];
    if flushing.others.is_empty() {
        return one(first);
    }
    let mut pieces = [IoSlice::new(&[]); SENDS_MAX];
    pieces[0] = IoSlice::new(first);
    for (piece, send) in pieces[1..].iter_mut().zip(&flushing.others) {
        *piece = IoSlice::new(send.payload.as_ref());
    }
    several(&pieces[..=flushing.others.len()])
}

impl Future for Flushing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let connection = Arc::clone(&this.connection);
        let socket = connection.socket();
        loop {
            match this.send(|it| write_to(it, |b| socket.write(b), |p| socket.write_vectored(p))) {
                Stop::Done => break,
                Stop::Yield => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stop::Full => match ready!(socket.poll_write_ready(context)) {
                    Ok(()) => {}
                    // The runtime is ending, and drops the task.
                    Err(_) => return Poll::Pending,
                },
            }
        }
        this.is_done = true;
        Poll::Ready(())
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if !self.connection.shared().is_here() {
            // The connection is the parent's.
            return std::mem::forget(Arc::clone(&self.connection));
        }
        self.send_last();
        self.connection.queue().fail_if_busy(&EngineEnd::Runtime.error());
        self.drop_all();
    }
}
