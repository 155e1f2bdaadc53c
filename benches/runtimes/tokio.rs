//! Ordinary tokio: a pool, or a `BytesMut` per connection.

use std::net::TcpStream;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use uring_arena::tokio::{Pool, RecvStream};

use super::goal::Goal;
use super::{SLOT_BYTES, System};

struct Tokio {
    runtime: Runtime,
    tasks: LocalSet,
    goal: Goal,
}

fn start(
    sockets: Vec<TcpStream>,
    spawn: impl FnOnce(Vec<tokio::net::TcpStream>, Goal, &LocalSet),
) -> Box<dyn System> {
    let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
    let (tasks, goal) = (LocalSet::new(), Goal::default());
    let context = runtime.enter();
    let adopt = |socket: TcpStream| {
        socket.set_nonblocking(true).expect("a socket");
        tokio::net::TcpStream::from_std(socket).expect("a socket")
    };
    spawn(sockets.into_iter().map(adopt).collect(), goal.clone(), &tasks);
    drop(context);
    Box::new(Tokio { runtime, tasks, goal })
}

/// The engine as a task of the runtime.
pub fn pool(sockets: Vec<TcpStream>) -> Box<dyn System> {
    start(sockets, |sockets, goal, tasks| {
        let pool = Pool::new(super::arena()).expect("a pool");
        receive_all(&pool, sockets, &goal, tasks);
    })
}

/// The engine on a thread of its own.
pub fn threaded(sockets: Vec<TcpStream>) -> Box<dyn System> {
    on_a_thread(sockets, false)
}

/// The same thread, scheduled as a batch job.
pub fn batched(sockets: Vec<TcpStream>) -> Box<dyn System> {
    on_a_thread(sockets, true)
}

fn on_a_thread(sockets: Vec<TcpStream>, batch: bool) -> Box<dyn System> {
    start(sockets, |sockets, goal, tasks| {
        let builder = Pool::builder(super::arena()).own_thread().batch_scheduling(batch);
        receive_all(&builder.build().expect("a pool"), sockets, &goal, tasks);
    })
}

fn receive_all(pool: &Pool, sockets: Vec<tokio::net::TcpStream>, goal: &Goal, tasks: &LocalSet) {
    for socket in sockets {
        let incoming = pool.recv_stream(socket).expect("a stream");
        tasks.spawn_local(receive(incoming, goal.clone()));
    }
}

pub fn own(sockets: Vec<TcpStream>) -> Box<dyn System> {
    start(sockets, |sockets, goal, tasks| {
        for socket in sockets {
            tasks.spawn_local(receive_own(socket, goal.clone()));
        }
    })
}

async fn receive(mut incoming: RecvStream, goal: Goal) {
    while let Ok(Some(bytes)) = incoming.try_next().await {
        let len = bytes.len();
        drop(bytes);
        goal.arrived(len);
    }
}

async fn receive_own(mut socket: tokio::net::TcpStream, goal: Goal) {
    let mut buffer = BytesMut::new();
    loop {
        // Takes the old room again when the last message is dropped, and makes new room otherwise.
        buffer.reserve(SLOT_BYTES);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(len) => {
                drop(buffer.split().freeze());
                goal.arrived(len);
            }
        }
    }
}

impl System for Tokio {
    fn drain(&mut self, bytes: usize) {
        self.goal.expect(bytes);
        self.tasks.block_on(&self.runtime, self.goal.reached());
    }
}
