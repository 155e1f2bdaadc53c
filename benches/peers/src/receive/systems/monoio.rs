//! monoio on its io_uring driver: a fresh `BytesMut` per read.

use std::io;
use std::net::TcpStream;

use bytes::BytesMut;
use monoio::io::AsyncReadRent;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

pub struct Monoio {
    runtime: Runtime<IoUringDriver>,
    goal: Goal,
}

impl Monoio {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        // monoio takes a builder of the older io-uring crate, which tokio-uring hands out as well.
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(1024).uring_builder(ring);
        let mut runtime = builder.build()?;
        let goal = Goal::default();
        let slot_bytes = shape.slot_bytes();
        runtime.block_on(async {
            for socket in sockets {
                let socket = monoio::net::TcpStream::from_std(socket)?;
                monoio::spawn(receive(socket, slot_bytes, goal.clone()));
            }
            io::Result::Ok(())
        })?;
        Ok(Self { runtime, goal })
    }
}

async fn receive(mut socket: monoio::net::TcpStream, slot_bytes: usize, goal: Goal) {
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

impl Receiver for Monoio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }
}
