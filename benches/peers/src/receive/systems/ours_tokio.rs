//! Our pool on ordinary tokio: receive streams that hand out `Bytes`.

use std::io;
use std::net::TcpStream;

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use uring_arena::tokio::{Pool, RecvStream};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;

use super::ours::arena;

/// Who turns the ring.
#[derive(Clone, Copy)]
pub enum Engine {
    Task,
    Thread,
    /// A thread that interrupts nobody: `SCHED_BATCH`.
    Batch,
}

pub struct OursTokio {
    runtime: Runtime,
    tasks: LocalSet,
    goal: Goal,
}

impl OursTokio {
    pub fn start(sockets: Vec<TcpStream>, shape: Shape, engine: Engine) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (tasks, goal) = (LocalSet::new(), Goal::default());
        let context = runtime.enter();
        let builder = Pool::builder(arena(shape)?);
        let pool = match engine {
            Engine::Task => builder.build(),
            Engine::Thread => builder.own_thread().build(),
            Engine::Batch => builder.own_thread().batch_scheduling(true).build(),
        };
        let pool = pool.map_err(io::Error::other)?;
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let incoming = pool.recv_stream(tokio::net::TcpStream::from_std(socket)?)?;
            tasks.spawn_local(receive(incoming, goal.clone()));
        }
        drop(context);
        Ok(Self { runtime, tasks, goal })
    }
}

async fn receive(mut incoming: RecvStream, goal: Goal) {
    while let Ok(Some(bytes)) = incoming.try_next().await {
        let length = bytes.len();
        drop(bytes);
        goal.arrived(length);
    }
}

impl Receiver for OursTokio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.tasks.block_on(&self.runtime, self.goal.reached());
        Ok(())
    }
}
