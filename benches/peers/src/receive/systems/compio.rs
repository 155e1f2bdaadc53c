//! compio: multishot receive from its one pool; the buffers stay on the thread, so a `Bytes` means
//! a copy.

use std::io;
use std::net::TcpStream;
use std::num::NonZero;
use std::pin::pin;

use bytes::Bytes;
use compio::driver::ProactorBuilder;
use compio::io::AsyncReadMulti;
use compio::runtime::{Runtime, RuntimeBuilder};
use futures_util::StreamExt;

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

/// How it is set up, and what becomes of a message.
#[derive(Clone, Copy, PartialEq)]
pub enum Taste {
    InPlace,
    Copied,
    Defaults,
}

pub struct Compio {
    runtime: Runtime,
    goal: Goal,
}

impl Compio {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        taste: Taste,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let mut proactor = ProactorBuilder::new();
        if taste != Taste::Defaults {
            let buffers = NonZero::new(1024).ok_or(io::ErrorKind::InvalidInput)?;
            proactor
                .capacity(1024)
                .cqsize(4096)
                .single_issuer(true)
                .defer_taskrun(true)
                .buffer_pool_size(buffers)
                .buffer_pool_buffer_len(shape.slot_bytes());
        }
        let runtime = RuntimeBuilder::new().with_proactor(proactor).build()?;
        let goal = Goal::default();
        runtime.block_on(async {
            for socket in sockets {
                let socket = compio::net::TcpStream::from_std(socket)?;
                compio::runtime::spawn(receive(socket, goal.clone(), taste, outlet.clone()))
                    .detach();
            }
            io::Result::Ok(())
        })?;
        Ok(Self { runtime, goal })
    }
}

async fn receive(mut socket: compio::net::TcpStream, goal: Goal, taste: Taste, outlet: Outlet) {
    loop {
        let mut messages = pin!(socket.read_multi(0));
        while let Some(message) = messages.next().await {
            match message {
                Ok(buffer) => {
                    let length = buffer.len();
                    if length == 0 {
                        return;
                    }
                    if taste == Taste::Copied {
                        outlet.take(Bytes::copy_from_slice(&buffer));
                    }
                    drop(buffer);
                    goal.arrived(length);
                }
                // Its word for ENOBUFS. The stream arms itself again on the next poll.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => goal.starve(),
                Err(_) => return,
            }
        }
    }
}

impl Receiver for Compio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.runtime.block_on(self.goal.reached());
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.goal.starved()
    }
}
