//! tokio with two workers, nothing pinned: a pool, or a `BytesMut` per connection, while one thread sends without a break.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use uring_arena::tokio::Pool;

use super::{MESSAGE_BYTES, SLOT_BYTES};

/// Messages that each connection brings in a round.
const MESSAGES: usize = 64;

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
pub struct Workers {
    runtime: Runtime,
    goal: Arc<Goal>,
    senders: Vec<TcpStream>,
}

/// What a round took, for each of its messages.
pub struct Took {
    pub elapsed_ns: f64,
    pub processor_ns: f64,
}

fn start(
    (senders, sockets): (Vec<TcpStream>, Vec<TcpStream>),
    spawn: impl FnOnce(Vec<tokio::net::TcpStream>, &Arc<Goal>),
) -> Workers {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime");
    let goal = Arc::default();
    let context = runtime.enter();
    let adopt = |socket: TcpStream| {
        socket.set_nonblocking(true).expect("a socket");
        tokio::net::TcpStream::from_std(socket).expect("a socket")
    };
    spawn(sockets.into_iter().map(adopt).collect(), &goal);
    drop(context);
    Workers { runtime, goal, senders }
}

pub fn pool(pairs: (Vec<TcpStream>, Vec<TcpStream>)) -> Workers {
    receive_all(pairs, false)
}

/// The pool's thread scheduled as a batch job.
pub fn batched(pairs: (Vec<TcpStream>, Vec<TcpStream>)) -> Workers {
    receive_all(pairs, true)
}

fn receive_all(pairs: (Vec<TcpStream>, Vec<TcpStream>), batch: bool) -> Workers {
    start(pairs, |sockets, goal| {
        let pool = Pool::builder(super::arena()).batch_scheduling(batch).build().expect("a pool");
        for socket in sockets {
            let (mut incoming, goal) = (pool.recv_stream(socket).expect("a stream"), Arc::clone(goal));
            tokio::spawn(async move {
                while let Ok(Some(bytes)) = incoming.try_next().await {
                    let len = bytes.len();
                    drop(bytes);
                    goal.arrived(len);
                }
            });
        }
    })
}

pub fn own(pairs: (Vec<TcpStream>, Vec<TcpStream>)) -> Workers {
    start(pairs, |sockets, goal| {
        for mut socket in sockets {
            let goal = Arc::clone(goal);
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                loop {
                    buffer.reserve(SLOT_BYTES);
                    match socket.read_buf(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(len) => {
                            drop(buffer.split().freeze());
                            goal.arrived(len);
                        }
                    }
                }
            });
        }
    })
}

impl Workers {
    /// Sends to every connection in turn, and waits for the last byte.
    pub fn round(&mut self) -> Took {
        let messages = MESSAGES * self.senders.len();
        self.goal.missing.store(messages * MESSAGE_BYTES, Ordering::Relaxed);
        let (begin, processor_begin) = (Instant::now(), super::processor_ns());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..MESSAGES {
                    for sender in &mut self.senders {
                        sender.write_all(&[0x5A; MESSAGE_BYTES]).expect("room in the socket");
                    }
                }
            });
            self.runtime.block_on(self.goal.reached.notified());
        });
        let processor_ns = super::processor_ns() - processor_begin;
        let per_message = |ns: f64| ns / messages as f64;
        Took {
            elapsed_ns: per_message(begin.elapsed().as_nanos() as f64),
            processor_ns: per_message(processor_ns as f64),
        }
    }
}
