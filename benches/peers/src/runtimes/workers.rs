//! tokio with two workers, nothing pinned, while one more thread sends without a break. Received is
//! into the pool, whose ring has a thread of its own there, or into a `BytesMut` per connection.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use uring_arena::tokio::{Engine, Pool, RecvStream};

use crate::receive::{Shape, Wire, arena};
use crate::run::{Answer, Method, Question, Sample, Work, metric};

const SHAPE: Shape = Shape::new(64, 512);

/// The number of messages that each connection brings in a round.
const MESSAGES: usize = 64;

pub const TWO_WORKERS: Question = Question {
    label: "workers: tokio with two workers, 64 connections × 512 B, a sender without a break",
    metrics: &[
        metric("elapsed", "the time that passes", "ns", 1.0),
        metric("cpu", "processor time, the sender's included", "ns", 1.0),
        metric("syscalls", "system calls per message, the sender's included", "number", 1.0),
    ],
    method: Method::program,
};

pub static WORKERS: [Answer<Question>; 2] = [
    Answer::new(
        "uring-arena on tokio",
        "`Pool`, its engine on a thread of its own; a `Bytes` that may leave the thread",
        |_, _| start(true),
    ),
    Answer::new(
        "tokio + BytesMut",
        "a `BytesMut` per connection, `reserve`, `read_buf`, `split().freeze()`",
        |_, _| start(false),
    ),
];

fn start(has_pool: bool) -> io::Result<Work> {
    let (wire, sockets) = Wire::connect(SHAPE)?;
    let mut workers = Workers::start(has_pool, wire, sockets)?;
    workers.round()?;
    Ok(Box::new(move |rounds| {
        let begin = Instant::now();
        (0..rounds).try_for_each(|_| workers.round())?;
        let messages = (rounds as usize * MESSAGES * SHAPE.connections) as f64;
        let elapsed = begin.elapsed().as_nanos() as f64 / messages;
        Ok(Sample::default().with("elapsed", elapsed).with("operations", messages))
    }))
}

/// A count of the bytes that are still to come, and the task that waits for the last.
#[derive(Default)]
struct Goal {
    missing: AtomicUsize,
    reached: Notify,
}

impl Goal {
    fn arrived(&self, bytes: usize) {
        // Relaxed: only the count matters; `Notify` orders the rest.
        if self.missing.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.reached.notify_one();
        }
    }
}

/// A runtime whose tasks receive, and the other ends of their connections.
struct Workers {
    runtime: Runtime,
    goal: Arc<Goal>,
    wire: Wire,
}

impl Workers {
    fn start(has_pool: bool, wire: Wire, sockets: Vec<TcpStream>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
        let goal = Arc::<Goal>::default();
        let context = runtime.enter();
        let pool = has_pool.then(|| {
            Pool::builder(arena(SHAPE)?).engine(Engine::Ring).build().map_err(io::Error::other)
        });
        let pool = pool.transpose()?;
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpStream::from_std(socket)?;
            match &pool {
                Some(pool) => tokio::spawn(receive(pool.recv_stream(socket)?, goal.clone())),
                None => tokio::spawn(receive_own(socket, goal.clone())),
            };
        }
        drop(context);
        Ok(Self { runtime, goal, wire })
    }

    /// Sends to every connection in turn, and waits for the last byte.
    fn round(&mut self) -> io::Result<()> {
        let Self { runtime, goal, wire } = self;
        let bytes = MESSAGES * SHAPE.connections * SHAPE.message_bytes;
        goal.missing.store(bytes, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                (0..MESSAGES).try_for_each(|_| wire.send(0..wire.connections()).map(drop))
            });
            runtime.block_on(goal.reached.notified());
            sent.join().map_err(|_| io::Error::other("the sender has panicked"))?
        })
    }
}

async fn receive(mut incoming: RecvStream, goal: Arc<Goal>) {
    while let Ok(Some(bytes)) = incoming.try_next().await {
        let length = bytes.len();
        drop(bytes);
        goal.arrived(length);
    }
}

async fn receive_own(mut socket: tokio::net::TcpStream, goal: Arc<Goal>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(SHAPE.slot_bytes());
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                drop(buffer.split().freeze());
                goal.arrived(length);
            }
        }
    }
}
