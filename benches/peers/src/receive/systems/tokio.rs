//! tokio on one thread: `BytesMut` per connection as in its own framing, or one buffer for all.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::receive::Shape;
use crate::receive::goal::Goal;
use crate::receive::lockstep::Receiver;
use crate::receive::outlet::Outlet;

/// Where the bytes go.
#[derive(Clone, Copy)]
pub enum Memory {
    /// Each waits with room of its own and hands out `Bytes`.
    PerConnection,
    /// Nobody holds memory while waiting; nothing is handed out.
    Shared,
}

pub struct Tokio {
    runtime: Runtime,
    tasks: LocalSet,
    goal: Goal,
}

impl Tokio {
    pub fn start(
        sockets: Vec<TcpStream>,
        shape: Shape,
        memory: Memory,
        outlet: Outlet,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (tasks, goal) = (LocalSet::new(), Goal::default());
        let shared = Rc::new(RefCell::new(vec![0; shape.slot_bytes()]));
        let context = runtime.enter();
        for socket in sockets {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpStream::from_std(socket)?;
            match memory {
                Memory::PerConnection => tasks.spawn_local(receive(
                    socket,
                    shape.slot_bytes(),
                    goal.clone(),
                    outlet.clone(),
                )),
                Memory::Shared => {
                    tasks.spawn_local(receive_shared(socket, shared.clone(), goal.clone()))
                }
            };
        }
        drop(context);
        Ok(Self { runtime, tasks, goal })
    }
}

async fn receive(mut socket: tokio::net::TcpStream, slot_bytes: usize, goal: Goal, outlet: Outlet) {
    let mut buffer = BytesMut::new();
    loop {
        // Takes the old room again when the last message is dropped, and makes new room otherwise.
        buffer.reserve(slot_bytes);
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                outlet.take(buffer.split().freeze());
                goal.arrived(length);
            }
        }
    }
}

async fn receive_shared(socket: tokio::net::TcpStream, buffer: Rc<RefCell<Vec<u8>>>, goal: Goal) {
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut buffer.borrow_mut()) {
            Ok(0) => return,
            Ok(length) => goal.arrived(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

impl Receiver for Tokio {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        self.goal.expect(bytes);
        self.tasks.block_on(&self.runtime, self.goal.reached());
        Ok(())
    }
}
