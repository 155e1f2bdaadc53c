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

/// Reads a file; `read` takes where to and gives back how many bytes.
struct Reads<F> {
    runtime: Runtime,
    read: F,
}

impl<F: AsyncFnMut(u64) -> usize> System for Reads<F> {
    fn drain(&mut self, bytes: usize) {
        self.runtime.block_on(async {
            let mut offset = 0;
            while offset < bytes {
                offset += (self.read)(offset as u64).await;
            }
        });
    }
}

pub fn read_arena(path: &std::path::Path) -> Box<dyn System> {
    let runtime = Runtime::new(&builder()).expect("a runtime");
    let arena = super::arena();
    let (file, registered) = runtime.block_on(async {
        let file = tokio_uring::fs::File::open(path).await.expect("our file");
        (Rc::new(file), arena_io::Registered::new(&arena).expect("a free table"))
    });
    let read = async move |offset| {
        let buffer = arena.allocate().expect("a free slot");
        let (result, buffer) = registered.read_at(&file, buffer, offset).await;
        drop(buffer.freeze());
        result.expect("a file")
    };
    Box::new(Reads { runtime, read })
}

pub fn read_own(path: &std::path::Path) -> Box<dyn System> {
    let runtime = Runtime::new(&builder()).expect("a runtime");
    let file = runtime.block_on(tokio_uring::fs::File::open(path)).expect("our file");
    let mut kept = Some(Vec::with_capacity(SLOT_BYTES));
    let read = async move |offset| {
        let buffer: Vec<u8> = kept.take().expect("given back");
        let (result, buffer) = file.read_at(buffer, offset).await;
        kept = Some(buffer);
        result.expect("a file")
    };
    Box::new(Reads { runtime, read })
}
