//! compio: a ring over the arena, or its own ring.

use std::net::TcpStream;
use std::num::NonZeroU16;

use bytes::Bytes;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncReadAt, AsyncReadMulti};
use compio::runtime::Runtime;
use futures_util::StreamExt;
use uring_arena::BufferRing;
use uring_arena::compio::{ReceiveRing, Registered};

use super::goal::Goal;
use super::{SLOT_BYTES, SLOTS, System};

struct Compio {
    runtime: Runtime,
    goal: Goal,
}

fn start(
    sockets: Vec<TcpStream>,
    spawn: impl AsyncFnOnce(Vec<compio::net::TcpStream>, Goal),
) -> Box<dyn System> {
    let mut proactor = ProactorBuilder::new();
    let buffers = NonZeroU16::new(SLOTS as u16).expect("not zero");
    proactor.capacity(4096).coop_taskrun(true).buffer_pool_size(buffers).buffer_pool_buffer_len(SLOT_BYTES);
    let runtime = Runtime::builder().with_proactor(proactor).build().expect("a runtime");
    let goal = Goal::default();
    runtime.block_on(async {
        let adopt = |socket| compio::net::TcpStream::from_std(socket).expect("a socket");
        spawn(sockets.into_iter().map(adopt).collect(), goal.clone()).await;
    });
    Box::new(Compio { runtime, goal })
}

pub fn arena(sockets: Vec<TcpStream>) -> Box<dyn System> {
    start(sockets, async |sockets, goal| {
        let options = BufferRing::options().entries(1024);
        let ring = ReceiveRing::new(&super::arena(), options).expect("a ring");
        for socket in sockets {
            let (mut incoming, goal) = (ring.receive(&socket), goal.clone());
            compio::runtime::spawn(async move {
                while let Ok(Some(bytes)) = incoming.try_next().await {
                    let len = bytes.len();
                    drop(bytes);
                    goal.arrived(len);
                }
            })
            .detach();
        }
    })
}

/// Consumed in place, on this thread.
pub fn own(sockets: Vec<TcpStream>) -> Box<dyn System> {
    receive_own(sockets, |bytes| std::hint::black_box(bytes).len())
}

/// Each message copied out, so that it may leave.
pub fn copied(sockets: Vec<TcpStream>) -> Box<dyn System> {
    receive_own(sockets, |bytes| Bytes::copy_from_slice(bytes).len())
}

fn receive_own(sockets: Vec<TcpStream>, consume: fn(&[u8]) -> usize) -> Box<dyn System> {
    start(sockets, async |sockets, goal| {
        for mut socket in sockets {
            let goal = goal.clone();
            compio::runtime::spawn(async move {
                let mut incoming = std::pin::pin!(socket.read_multi(0));
                while let Some(Ok(buffer)) = incoming.next().await {
                    let len = consume(&buffer);
                    drop(buffer);
                    goal.arrived(len);
                }
            })
            .detach();
        }
    })
}

impl System for Compio {
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
    let runtime = Runtime::new().expect("a runtime");
    let arena = super::arena();
    let (file, registered) = runtime.block_on(async {
        let file = compio::fs::File::open(path).await.expect("our file");
        (file, Registered::new(&arena).expect("a free table"))
    });
    let read = async move |offset| {
        let buffer = arena.allocate().expect("a free slot");
        let (result, buffer): (std::io::Result<usize>, _) =
            registered.read_at(&file, buffer, offset).await.into();
        drop(buffer.freeze());
        result.expect("a file")
    };
    Box::new(Reads { runtime, read })
}

pub fn read_own(path: &std::path::Path) -> Box<dyn System> {
    let runtime = Runtime::new().expect("a runtime");
    let file = runtime.block_on(compio::fs::File::open(path)).expect("our file");
    let mut kept = Some(Vec::with_capacity(SLOT_BYTES));
    let read = async move |offset| {
        let mut buffer: Vec<u8> = kept.take().expect("given back");
        buffer.clear();
        let (result, buffer): (std::io::Result<usize>, _) = file.read_at(buffer, offset).await.into();
        kept = Some(buffer);
        result.expect("a file")
    };
    Box::new(Reads { runtime, read })
}
