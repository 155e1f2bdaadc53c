//! tokio-uring: a fresh `BytesMut` per read, the only one of its buffers that may leave the thread;
//! or a buffer per connection, used in place or copied out of.

use std::io;
use std::net::TcpStream;

use bytes::{Bytes, BytesMut};
use tokio_uring::{Runtime, builder, uring_builder};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

/// Where the bytes go.
#[derive(Clone, Copy, PartialEq)]
pub enum Taste {
    Fresh,
    /// The same, and the runtime as it comes.
    Defaults,
    /// Consumed in place; nothing leaves the task.
    InPlace,
    /// The same, and a `Bytes` by copying.
    Copied,
}

pub struct TokioUring {
    runtime: Runtime,
    goal: Goal,
}

impl TokioUring {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        taste: Taste,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let mut ring = uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let runtime = match taste {
            Taste::Defaults => Runtime::new(&builder())?,
            _ => Runtime::new(builder().entries(1024).uring_builder(&ring))?,
        };
        let goal = Goal::default();
        let slot_bytes = shape.slot_bytes();
        runtime.block_on(async {
            for socket in sockets {
                let socket = tokio_uring::net::TcpStream::from_std(socket);
                let (goal, outlet) = (goal.clone(), outlet.clone());
                match taste {
                    Taste::Fresh | Taste::Defaults => {
                        tokio_uring::spawn(receive(socket, slot_bytes, goal, outlet))
                    }
                    _ => tokio_uring::spawn(receive_in_place(socket, slot_bytes, goal, taste)),
                };
            }
        });
        Ok(Self { runtime, goal })
    }
}

async fn receive(
    socket: tokio_uring::net::TcpStream,
    slot_bytes: usize,
    goal: Goal,
    outlet: Outlet,
) {
    loop {
        match socket.read(BytesMut::with_capacity(slot_bytes)).await {
            (Ok(0) | Err(_), _) => return,
            (Ok(length), buffer) => {
                outlet.take(buffer.freeze());
                goal.arrived(length);
            }
        }
    }
}

async fn receive_in_place(
    socket: tokio_uring::net::TcpStream,
    slot_bytes: usize,
    goal: Goal,
    taste: Taste,
) {
    let mut buffer = Vec::with_capacity(slot_bytes);
    loop {
        match socket.read(buffer).await {
            (Ok(0) | Err(_), _) => return,
            (Ok(length), back) => {
                buffer = back;
                if taste == Taste::Copied {
                    drop(Bytes::copy_from_slice(&buffer[..length]));
                }
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
