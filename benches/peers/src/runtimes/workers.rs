//! tokio with two workers, nothing pinned: the pool, whose ring has a thread of its own there, or a
//! `BytesMut` per connection, while one more thread sends without a break.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use uring_arena::tokio::Pool;

use crate::harness::{
    Allocator, Child, Effort, Progress, Sample, Stopwatch, serve, take_turns_anew,
};
use crate::receive::{Shape, Wire, arena};
use crate::report::{Comparison, Part, Row};

/// The word of this role.
pub const KIND: &str = "workers";
/// What the tables are called after.
pub const ELAPSED: &str = "workers-elapsed";
pub const PROCESSOR: &str = "workers-processor";

const SHAPE: Shape = Shape { connections: 64, message_bytes: 512 };

/// Messages that each connection brings in a round.
const MESSAGES: usize = 64;

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    Own,
}

impl System {
    const ALL: [Self; 2] = [Self::Ours, Self::Own];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "uring-arena on tokio",
            Self::Own => "tokio + BytesMut",
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Ours => {
                "`Pool`, its engine on a thread of its own; a `Bytes` that may leave the thread"
            }
            Self::Own => "a `BytesMut` per connection, `reserve`, `read_buf`, `split().freeze()`",
        }
    }

    fn key(self) -> String {
        format!("{self:?}")
    }
}

pub fn compare(effort: Effort, progress: &Progress, part: &mut Part) {
    let start = || {
        let start = |system: System| match Child::start(
            &["runtimes", KIND, &system.key()],
            Allocator::Glibc,
        ) {
            Ok(child) => Some((system, child)),
            Err(error) => {
                progress.aloud(&format!("left out: two workers, {}: {error}", system.name()));
                None
            }
        };
        System::ALL.into_iter().filter_map(start).collect()
    };
    let rounds = effort.choose(8, 16);
    let answers =
        take_turns_anew(effort.choose(1, 4), rounds, start, |child: &mut Child| child.run(4));
    for (key, what, title) in [
        (ELAPSED, "elapsed", "the time that passes"),
        (PROCESSOR, "processor", "processor time, the sender's included"),
    ] {
        let rows = answers.iter().map(|(system, own)| {
            Row::new(system.name(), &own.note(system.note()), own.values(what))
        });
        let title =
            format!("tokio with two workers, {}, a sender without a break: {title}", SHAPE.title());
        let ours = System::Ours.name();
        part.push(Comparison::beside(ours, key, &title, "ns", rows.collect()));
    }
}

/// The child's side: which system.
pub fn work(word: &str) -> io::Result<()> {
    let system = System::ALL.into_iter().find(|system| system.key() == word);
    let system = system.ok_or_else(|| io::Error::other("no such system"))?;
    let (wire, sockets) = Wire::connect(SHAPE.connections, SHAPE.message_bytes)?;
    let mut workers = Workers::start(system, wire, sockets)?;
    workers.round()?;
    serve(|rounds| {
        let (begin, processor) = (Instant::now(), Stopwatch::process());
        for _ in 0..rounds {
            workers.round()?;
        }
        let messages = (rounds as usize * MESSAGES * SHAPE.connections) as f64;
        let each = |time: std::time::Duration| time.as_nanos() as f64 / messages;
        let (elapsed, processor) = (each(begin.elapsed()), each(processor.elapsed()));
        Ok(Sample::default().with("elapsed", elapsed).with("processor", processor))
    })
}

/// Bytes that are still to come, and who waits for the last.
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
    fn start(system: System, wire: Wire, sockets: Vec<TcpStream>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
        let goal = Arc::<Goal>::default();
        let context = runtime.enter();
        let pool = match system {
            System::Ours => Some(Pool::new(arena(SHAPE)?).map_err(io::Error::other)?),
            System::Own => None,
        };
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
                for _ in 0..MESSAGES {
                    wire.send(0..wire.connections())?;
                }
                io::Result::Ok(())
            });
            runtime.block_on(goal.reached.notified());
            sent.join().map_err(|_| io::Error::other("the sender has panicked"))?
        })
    }
}

async fn receive(mut incoming: uring_arena::tokio::RecvStream, goal: Arc<Goal>) {
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
