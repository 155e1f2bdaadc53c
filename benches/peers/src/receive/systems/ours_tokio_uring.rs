//! Our memory on tokio-uring: its runtime and its reads, a slot for each, frozen to `Bytes`.

use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use tokio_uring::{Runtime, builder, uring_builder};
use uring_arena::{FixedArena, tokio_uring::read};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

use super::ours::arena;

pub struct OursTokioUring {
    runtime: Runtime,
    goal: Goal,
}

impl OursTokioUring {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape) -> io::Result<Self> {
        let mut ring = uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let runtime = Runtime::new(builder().entries(1024).uring_builder(&ring))?;
        let (arena, goal) = (arena(shape)?, Goal::default());
        runtime.block_on(async {
            for socket in sockets {
                let socket = Rc::new(tokio_uring::net::TcpStream::from_std(socket));
                tokio_uring::spawn(receive(arena.clone(), socket, goal.clone()));
            }
        });
        Ok(Self { runtime, goal })
    }
}

async fn receive(arena: FixedArena, socket: Rc<tokio_uring::net::TcpStream>, goal: Goal) {
    while let Ok(slot) = arena.allocate() {
        let (Ok(length @ 1..), slot) = read(&socket, slot).await else { return };
        drop(slot.freeze());
        goal.arrived(length);
    }
}

impl Receiver for OursTokioUring {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }
}
