//! tokio-uring: slots of the arena, or its own buffers.

use std::net::TcpStream;
use std::rc::Rc;

use bytes::Bytes;
use tokio_uring::{Runtime, builder, uring_builder};
use uring_arena::tokio_uring as arena_io;

use super::goal::Goal;
use super::{SLOT_BYTES, System};

struct TokioUring {
    runtime: Runtime,
    goal: Goal,
}

fn start(sockets: Vec<TcpStream>, spawn: impl Fn(tokio_uring::net::TcpStream, Goal)) -> Box<dyn System> {
    let mut ring = uring_builder();
    ring.setup_coop_taskrun().setup_cqsize(4096);
    let runtime = Runtime::new(builder().entries(1024).uring_builder(&ring)).expect("a runtime");
    let goal = Goal::default();
    runtime.block_on(async {
        for socket in sockets {
            spawn(tokio_uring::net::TcpStream::from_std(socket), goal.clone());
        }
    });
    Box::new(TokioUring { runtime, goal })
}

pub fn arena(sockets: Vec<TcpStream>) -> Box<dyn System> {
    let arena = super::arena();
    start(sockets, move |socket, goal| {
        let (socket, arena) = (Rc::new(socket), arena.clone());
        tokio_uring::spawn(async move {
            while let Ok(buffer) = arena.allocate() {
                let (Ok(len @ 1..), buffer) = arena_io::read(&socket, buffer).await else { return };
                drop(buffer.freeze());
                goal.arrived(len);
            }
        });
    })
}

/// A buffer per connection, consumed in place: nothing leaves the loop.
pub fn own(sockets: Vec<TcpStream>) -> Box<dyn System> {
    start(sockets, |socket, goal| {
        tokio_uring::spawn(async move {
            let mut buffer = Vec::with_capacity(SLOT_BYTES);
            loop {
                let (result, back) = socket.read(buffer).await;
                let Ok(len @ 1..) = result else { return };
                buffer = back;
                goal.arrived(len);
            }
        });
    })
}

/// The same, with each message copied out so that it may leave.
pub fn copied(sockets: Vec<TcpStream>) -> Box<dyn System> {
    start(sockets, |socket, goal| {
        tokio_uring::spawn(async move {
            let mut buffer = Vec::with_capacity(SLOT_BYTES);
            loop {
                let (result, back) = socket.read(buffer).await;
                let Ok(len @ 1..) = result else { return };
                buffer = back;
                drop(Bytes::copy_from_slice(&buffer[..len]));
                goal.arrived(len);
            }
        });
    })
}

impl System for TokioUring {
    fn drain(&mut self, bytes: usize) {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
    }
}
