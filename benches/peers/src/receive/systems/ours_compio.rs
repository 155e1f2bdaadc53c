//! Our buffer ring on compio: its runtime and tasks, our memory, `Bytes` out.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;

use compio::driver::ProactorBuilder;
use compio::runtime::{Runtime, RuntimeBuilder};
use uring_arena::{BufferRing, FixedArena, compio::ReceiveRing};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

const SLOTS: usize = 1024;

pub struct OursCompio {
    runtime: Runtime,
    ring: ReceiveRing,
    goal: Goal,
}

impl OursCompio {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(SLOTS)?, nz(shape.slot_bytes())?);
        let arena = builder.alignment(4096).build().map_err(io::Error::other)?;
        let mut proactor = ProactorBuilder::new();
        proactor.capacity(1024).cqsize(4096).single_issuer(true).defer_taskrun(true);
        let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
        let goal = Goal::default();
        let ring = runtime.block_on(async {
            let options = BufferRing::options().entries(SLOTS);
            let ring = ReceiveRing::new(&arena, options).map_err(io::Error::other)?;
            for socket in sockets {
                let socket = compio::net::TcpStream::from_std(socket)?;
                compio::runtime::spawn(receive(ring.clone(), socket, goal.clone())).detach();
            }
            io::Result::Ok(ring)
        })?;
        Ok(Self { runtime, ring, goal })
    }
}

async fn receive(ring: ReceiveRing, socket: compio::net::TcpStream, goal: Goal) {
    let mut messages = ring.receive(&socket);
    while let Ok(Some(bytes)) = messages.try_next().await {
        let length = bytes.len();
        drop(bytes);
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
