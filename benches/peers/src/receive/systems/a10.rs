//! a10: multishot receive, its buffer wrapped by `Bytes::from_owner`. It brings no executor: the
//! smallest one is here.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use a10::io::ReadBufPool;
use a10::net::MultishotRecv;
use a10::{AsyncFd, Ring};
use bytes::Bytes;

use crate::receive::receiver::{Outlet, Receiver};
use crate::receive::wire::Shape;

struct A10 {
    ring: Ring,
    pool: ReadBufPool,
    connections: Vec<Connection>,
    woken: Arc<Mutex<Vec<usize>>>,
    /// The list that `woken` is exchanged with.
    turn: Vec<usize>,
    starved: u64,
    outlet: Outlet,
}

struct Connection {
    /// A leaked socket: the receive borrows it, and both live as long as the process.
    socket: &'static AsyncFd,
    messages: MultishotRecv<'static>,
    waker: Waker,
}

/// A waker that puts its connection on the list.
struct Call {
    index: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.lock().expect("not poisoned").push(self.index);
    }
}

/// Starts with the ring set up for the work, or as it comes; the pool of buffers is the same.
pub fn start(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    is_best: bool,
) -> io::Result<Box<dyn Receiver>> {
    let mut config = Ring::config();
    if is_best {
        config = config.single_issuer().defer_task_run();
        config = config.with_submission_queue_size(1024).with_completion_queue_size(4096);
    }
    let ring = config.build()?;
    let pool = ReadBufPool::new(ring.sq(), 1024, shape.slot_bytes() as u32)?;
    let woken = Arc::new(Mutex::new(Vec::new()));
    let connections = sockets.into_iter().enumerate().map(|(index, socket)| {
        let socket: &'static AsyncFd = Box::leak(Box::new(AsyncFd::new(socket.into(), ring.sq())));
        let messages = socket.multishot_recv(pool.clone());
        let waker = Arc::new(Call { index, woken: woken.clone() }).into();
        Connection { socket, messages, waker }
    });
    let connections: Vec<_> = connections.collect();
    let mut system = A10 { ring, pool, connections, woken, turn: Vec::new(), starved: 0, outlet };
    for index in 0..system.connections.len() {
        system.take_all(index)?;
    }
    Ok(Box::new(system))
}

impl A10 {
    /// Takes what one connection has; returns the bytes of it.
    fn take_all(&mut self, index: usize) -> io::Result<usize> {
        let connection = &mut self.connections[index];
        let mut context = Context::from_waker(&connection.waker);
        let mut got = 0;
        loop {
            match Pin::new(&mut connection.messages).poll_next(&mut context) {
                Poll::Pending => return Ok(got),
                Poll::Ready(Some(Ok(buffer))) => {
                    got += buffer.len();
                    self.outlet.take(Bytes::from_owner(buffer));
                    continue;
                }
                Poll::Ready(Some(Err(error))) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.starved += 1;
                }
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) => {}
            }
            connection.messages = connection.socket.multishot_recv(self.pool.clone());
        }
    }
}

impl Receiver for A10 {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let mut got = 0;
        while got < bytes {
            self.ring.poll(None)?;
            std::mem::swap(&mut *self.woken.lock().expect("not poisoned"), &mut self.turn);
            let mut turn = std::mem::take(&mut self.turn);
            for index in turn.drain(..) {
                got += self.take_all(index)?;
            }
            self.turn = turn;
        }
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.starved
    }
}
