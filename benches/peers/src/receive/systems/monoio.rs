//! monoio on its io_uring driver: a fresh `BytesMut` per read, or a buffer per connection used
//! again and again.

use std::io;
use std::net::TcpStream;

use bytes::BytesMut;
use monoio::io::AsyncReadRent;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

/// Where the bytes go.
#[derive(Clone, Copy)]
pub enum Taste {
    Fresh,
    /// The same, and the runtime as it comes.
    Defaults,
    /// Consumed in place; nothing leaves the task.
    InPlace,
}

pub struct Monoio {
    runtime: Runtime<IoUringDriver>,
    goal: Goal,
}

impl Monoio {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        taste: Taste,
        outlet: Outlet,
    ) -> io::Result<Self> {
        // monoio takes a builder of the older io-uring crate, which tokio-uring hands out as well.
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        let builder = RuntimeBuilder::<IoUringDriver>::new();
        let builder = match taste {
            Taste::Defaults => builder,
            _ => builder.with_entries(1024).uring_builder(ring),
        };
        let mut runtime = builder.build()?;
        let goal = Goal::default();
        let slot_bytes = shape.slot_bytes();
        runtime.block_on(async {
            for socket in sockets {
                let socket = monoio::net::TcpStream::from_std(socket)?;
                match taste {
                    Taste::Fresh | Taste::Defaults => {
                        monoio::spawn(receive(socket, slot_bytes, goal.clone(), outlet.clone()));
                    }
                    Taste::InPlace => {
                        monoio::spawn(receive_in_place(socket, slot_bytes, goal.clone()));
                    }
                }
            }
            io::Result::Ok(())
        })?;
        Ok(Self { runtime, goal })
    }
}

async fn receive(
    mut socket: monoio::net::TcpStream,
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

async fn receive_in_place(mut socket: monoio::net::TcpStream, slot_bytes: usize, goal: Goal) {
    let mut buffer = Vec::with_capacity(slot_bytes);
    loop {
        match socket.read(buffer).await {
            (Ok(0) | Err(_), _) => return,
            (Ok(length), back) => {
                buffer = back;
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
