//! Our buffer ring on compio: its runtime and tasks, our memory, `Bytes` out.

use std::io;
use std::net::TcpStream;

use compio::driver::ProactorBuilder;
use compio::runtime::{Runtime, RuntimeBuilder};
use uring_arena::{BufferRing, compio::ReceiveRing};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

use super::ours::{SLOTS, arena};

pub struct OursCompio {
    runtime: Runtime,
    ring: ReceiveRing,
    goal: Goal,
}

impl OursCompio {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape, outlet: Outlet) -> io::Result<Self> {
        let arena = arena(shape)?;
        let mut proactor = ProactorBuilder::new();
        proactor.capacity(1024).cqsize(4096).single_issuer(true).defer_taskrun(true);
        let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
        let goal = Goal::default();
        let ring = runtime.block_on(async {
            let options = BufferRing::options().entries(SLOTS);
            let ring = ReceiveRing::new(&arena, options).map_err(io::Error::other)?;
            for socket in sockets {
                let socket = compio::net::TcpStream::from_std(socket)?;
                let received = receive(ring.clone(), socket, goal.clone(), outlet.clone());
                compio::runtime::spawn(received).detach();
            }
            io::Result::Ok(ring)
        })?;
        Ok(Self { runtime, ring, goal })
    }
}

async fn receive(ring: ReceiveRing, socket: compio::net::TcpStream, goal: Goal, outlet: Outlet) {
    let mut messages = ring.receive(&socket);
    while let Ok(Some(bytes)) = messages.try_next().await {
        let length = bytes.len();
        outlet.take(bytes);
        goal.arrived(length);
    }
}

impl Receiver for OursCompio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.ring.metrics().starved
    }
}
