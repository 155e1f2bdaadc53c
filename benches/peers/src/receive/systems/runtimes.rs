//! Receive loops in the runtimes, with their own memory and with ours: a task for each connection.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::pin::pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use compio::io::AsyncReadMulti;
use futures_util::StreamExt;
use monoio::io::AsyncReadRent;
use tokio::io::AsyncReadExt;
use uring_arena::tokio::{Engine, PoolBuilder};
use uring_arena::{BufferRing, compio::ReceiveRing};

use crate::receive::receiver::{Outlet, Receiver, Tasks};
use crate::receive::wire::Shape;
use crate::tasks::{self, Settings};

use super::ours::{SLOTS, arena};

type Started = io::Result<Box<dyn Receiver>>;

const BEST: Settings = Settings::Best(1024);

fn tokio_stream(socket: TcpStream) -> io::Result<tokio::net::TcpStream> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(socket)
}

/// Starts tokio with a `BytesMut` per connection, as in its own framing. Each connection waits with
/// room of its own.
pub fn tokio(sockets: Vec<TcpStream>, shape: Shape, outlet: Outlet) -> Started {
    Tasks::start(tasks::tokio(true)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let (mut socket, outlet) = (tokio_stream(socket)?, outlet.clone());
            Ok(async move {
                let mut buffer = BytesMut::new();
                loop {
                    // Takes the old room again when the last message is dropped, and makes new
                    // room otherwise.
                    buffer.reserve(shape.slot_bytes());
                    match socket.read_buf(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => {
                            outlet.take(buffer.split().freeze());
                            goal.arrived(length);
                        }
                    }
                }
            })
        })
    })
}

/// Starts tokio with one buffer for all: nothing is held while waiting, nothing is handed out.
pub fn tokio_shared(sockets: Vec<TcpStream>, shape: Shape, _: Outlet) -> Started {
    let buffer = Rc::new(RefCell::new(vec![0; shape.slot_bytes()]));
    Tasks::start(tasks::tokio(true)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let (socket, buffer) = (tokio_stream(socket)?, buffer.clone());
            Ok(async move {
                while socket.readable().await.is_ok() {
                    match socket.try_read(&mut buffer.borrow_mut()) {
                        Ok(0) => return,
                        Ok(length) => goal.arrived(length),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            })
        })
    })
}

/// Starts our pool on tokio, with the engine that the builder says.
pub fn ours_tokio(
    sockets: Vec<TcpStream>,
    shape: Shape,
    engine: fn(PoolBuilder) -> PoolBuilder,
) -> Started {
    Tasks::start(tasks::tokio(true)?, sockets, || {
        let builder = uring_arena::tokio::Pool::builder(arena(shape)?).engine(Engine::Ring);
        let pool = engine(builder).build().map_err(io::Error::other)?;
        Ok(move |socket, goal: tasks::Goal| {
            let mut incoming = pool.recv_stream(tokio_stream(socket)?)?;
            Ok(async move {
                while let Ok(Some(bytes)) = incoming.try_next().await {
                    let length = bytes.len();
                    drop(bytes);
                    goal.arrived(length);
                }
            })
        })
    })
}

/// Starts tokio-uring with a fresh `BytesMut` per read, its only buffer that may leave the thread.
pub fn tokio_uring(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    settings: Settings,
) -> Started {
    Tasks::start(tasks::tokio_uring(settings)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let socket = tokio_uring::net::TcpStream::from_std(socket);
            let outlet = outlet.clone();
            Ok(async move {
                loop {
                    match socket.read(BytesMut::with_capacity(shape.slot_bytes())).await {
                        (Ok(0) | Err(_), _) => return,
                        (Ok(length), buffer) => {
                            outlet.take(buffer.freeze());
                            goal.arrived(length);
                        }
                    }
                }
            })
        })
    })
}

/// Starts tokio-uring with a buffer per connection, consumed in place or copied out of.
pub fn tokio_uring_in_place(sockets: Vec<TcpStream>, shape: Shape, copies: bool) -> Started {
    Tasks::start(tasks::tokio_uring(BEST)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let socket = tokio_uring::net::TcpStream::from_std(socket);
            Ok(async move {
                let mut buffer = Vec::with_capacity(shape.slot_bytes());
                loop {
                    match socket.read(buffer).await {
                        (Ok(0) | Err(_), _) => return,
                        (Ok(length), back) => {
                            buffer = back;
                            if copies {
                                drop(Bytes::copy_from_slice(&buffer[..length]));
                            }
                            goal.arrived(length);
                        }
                    }
                }
            })
        })
    })
}

/// Starts our memory on tokio-uring: its reads, a slot for each, frozen to `Bytes`.
pub fn ours_tokio_uring(sockets: Vec<TcpStream>, shape: Shape, _: Outlet) -> Started {
    Tasks::start(tasks::tokio_uring(BEST)?, sockets, || {
        let arena = arena(shape)?;
        Ok(move |socket, goal: tasks::Goal| {
            let socket = Rc::new(tokio_uring::net::TcpStream::from_std(socket));
            let arena = arena.clone();
            Ok(async move {
                while let Ok(slot) = arena.allocate() {
                    let read = uring_arena::tokio_uring::read(&socket, slot).await;
                    let (Ok(length @ 1..), slot) = read else { return };
                    drop(slot.freeze());
                    goal.arrived(length);
                }
            })
        })
    })
}

/// Starts compio's multishot receive from its one pool. The buffers stay on the thread, so a
/// `Bytes` means a copy.
pub fn compio(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    (settings, copies): (Settings, bool),
) -> Started {
    let buffers = (settings != Settings::Default).then_some((1024, shape.slot_bytes()));
    Tasks::start(tasks::compio(settings, buffers)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let (mut socket, outlet) = (compio::net::TcpStream::from_std(socket)?, outlet.clone());
            Ok(async move {
                loop {
                    let mut messages = pin!(socket.read_multi(0));
                    while let Some(message) = messages.next().await {
                        match message {
                            Ok(buffer) if buffer.is_empty() => return,
                            Ok(buffer) => {
                                let length = buffer.len();
                                if copies {
                                    outlet.take(Bytes::copy_from_slice(&buffer));
                                }
                                drop(buffer);
                                goal.arrived(length);
                            }
                            // Its word for ENOBUFS. It arms itself again on the next poll.
                            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                                goal.starve();
                            }
                            Err(_) => return,
                        }
                    }
                }
            })
        })
    })
}

/// Starts our buffer ring on compio: its runtime and tasks, our memory, `Bytes` out.
pub fn ours_compio(sockets: Vec<TcpStream>, shape: Shape, outlet: Outlet) -> Started {
    Tasks::start(tasks::compio(BEST, None)?, sockets, || {
        let options = BufferRing::options().entries(SLOTS);
        let ring = ReceiveRing::new(&arena(shape)?, options).map_err(io::Error::other)?;
        Ok(move |socket, goal: tasks::Goal| {
            let socket = compio::net::TcpStream::from_std(socket)?;
            let (ring, outlet) = (ring.clone(), outlet.clone());
            Ok(async move {
                let mut messages = ring.receive(&socket);
                while let Ok(Some(bytes)) = messages.try_next().await {
                    let length = bytes.len();
                    outlet.take(bytes);
                    goal.arrived(length);
                }
            })
        })
    })
}

/// Starts monoio with a fresh `BytesMut` per read.
pub fn monoio(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    settings: Settings,
) -> Started {
    Tasks::start(tasks::monoio(settings)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let (mut socket, outlet) = (monoio::net::TcpStream::from_std(socket)?, outlet.clone());
            Ok(async move {
                loop {
                    match socket.read(BytesMut::with_capacity(shape.slot_bytes())).await {
                        (Ok(0) | Err(_), _) => return,
                        (Ok(length), buffer) => {
                            outlet.take(buffer.freeze());
                            goal.arrived(length);
                        }
                    }
                }
            })
        })
    })
}

/// Starts monoio with a buffer per connection, consumed in place; nothing leaves the task.
pub fn monoio_in_place(sockets: Vec<TcpStream>, shape: Shape, _: Outlet) -> Started {
    Tasks::start(tasks::monoio(BEST)?, sockets, || {
        Ok(move |socket, goal: tasks::Goal| {
            let mut socket = monoio::net::TcpStream::from_std(socket)?;
            Ok(async move {
                let mut buffer = Vec::with_capacity(shape.slot_bytes());
                loop {
                    match socket.read(buffer).await {
                        (Ok(0) | Err(_), _) => return,
                        (Ok(length), back) => {
                            buffer = back;
                            goal.arrived(length);
                        }
                    }
                }
            })
        })
    })
}

/// Starts our memory on monoio: its reads, a slot for each, frozen to `Bytes`.
pub fn ours_monoio(sockets: Vec<TcpStream>, shape: Shape, _: Outlet) -> Started {
    Tasks::start(tasks::monoio(BEST)?, sockets, || {
        let arena = arena(shape)?;
        Ok(move |socket, goal: tasks::Goal| {
            let (mut socket, arena) = (monoio::net::TcpStream::from_std(socket)?, arena.clone());
            Ok(async move {
                while let Ok(slot) = arena.allocate() {
                    let read = socket.read(uring_arena::monoio::lend(slot)).await;
                    let (Ok(length @ 1..), slot) = read else { return };
                    drop(slot.freeze());
                    goal.arrived(length);
                }
            })
        })
    })
}
