//! tokio-uring: a fresh `BytesMut` per read, the only one of its buffers that may leave the thread.

use std::io;
use std::net::TcpStream;

use bytes::BytesMut;
use tokio_uring::{Runtime, builder, uring_builder};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

pub struct TokioUring {
    runtime: Runtime,
    goal: Goal,
}

impl TokioUring {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        let mut ring = uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let runtime = Runtime::new(builder().entries(1024).uring_builder(&ring))?;
        let goal = Goal::default();
        let slot_bytes = shape.slot_bytes();
        runtime.block_on(async {
            for socket in sockets {
                let socket = tokio_uring::net::TcpStream::from_std(socket);
                tokio_uring::spawn(receive(socket, slot_bytes, goal.clone()));
            }
        });
        Ok(Self { runtime, goal })
    }
}

async fn receive(socket: tokio_uring::net::TcpStream, slot_bytes: usize, goal: Goal) {
    loop {
        match socket.read(BytesMut::with_capacity(slot_bytes)).await {
            (Ok(0) | Err(_), _) => return,
            (Ok(length), buffer) => {
                drop(buffer.freeze());
                goal.arrived(length);
            }
        }
    }
}

impl Receiver for TokioUring {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }
}
