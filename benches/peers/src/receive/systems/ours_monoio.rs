//! Our memory on monoio: its runtime and its reads, a slot lent for each, frozen to `Bytes`.

use std::io;
use std::net::TcpStream;

use monoio::io::AsyncReadRent;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use uring_arena::{FixedArena, monoio::lend};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

use super::ours::arena;

pub struct OursMonoio {
    runtime: Runtime<IoUringDriver>,
    goal: Goal,
}

impl OursMonoio {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        // monoio takes a builder of the older io-uring crate, which tokio-uring hands out as well.
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(1024).uring_builder(ring);
        let mut runtime = builder.build()?;
        let (arena, goal) = (arena(shape)?, Goal::default());
        runtime.block_on(async {
            for socket in sockets {
                let socket = monoio::net::TcpStream::from_std(socket)?;
                monoio::spawn(receive(arena.clone(), socket, goal.clone()));
            }
            io::Result::Ok(())
        })?;
        Ok(Self { runtime, goal })
    }
}

async fn receive(arena: FixedArena, mut socket: monoio::net::TcpStream, goal: Goal) {
    while let Ok(slot) = arena.allocate() {
        let (Ok(length @ 1..), loan) = socket.read(lend(slot)).await else { return };
        drop(loan.freeze());
        goal.arrived(length);
    }
}

impl Receiver for OursMonoio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }
}
