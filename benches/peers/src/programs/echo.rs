//! An echo server on the runtime of `examples/custom_runtime`, beside the same server on the bare
//! io-uring crate.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use uring_arena::FixedArena;

use crate::measure::be_load;
use crate::report::OURS;
use crate::run::{Answer, Method, Question, Sample, Work, metric, to_io_error};

use super::echo_bare;
use super::executor::Runtime;

const CONNECTIONS: usize = 32;
const MESSAGE: [u8; 512] = [0x5A; 512];

pub const ECHO: Question = Question {
    label: "echo: Echo",
    metrics: &[
        metric("cpu", "the server's processor time per message", "ns", 1.0),
        metric("wall", "the round by the wall clock, per message", "ns", 1.0),
        metric("syscalls", "the server's system calls per message", "number", 1.0),
    ],
    method: |effort| Method { pinned: true, ..Method::program(effort) },
};

pub static SERVERS: [Answer<Question>; 2] = [
    Answer::new(OURS, "a task per connection, a slot per message", |_, _| start(serve)),
    Answer::new(
        "bare io-uring crate",
        "a registered buffer per connection, used again and again; the same ring flags",
        |_, _| start(echo_bare::serve),
    ),
];

/// Starts a server on a thread of its own, which serves until its connections are closed. The
/// clients are this thread.
fn start(serve: fn(Vec<TcpStream>) -> io::Result<()>) -> io::Result<Work> {
    be_load();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut clients, mut sockets) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        clients.push(client);
        sockets.push(listener.accept()?.0);
    }
    thread::Builder::new().name("server".into()).spawn(move || serve(sockets))?;
    Ok(Box::new(move |rounds| {
        let begin = Instant::now();
        (0..rounds).try_for_each(|_| round(&mut clients))?;
        let messages = (rounds * CONNECTIONS as u64) as f64;
        let wall = begin.elapsed().as_nanos() as f64 / messages;
        Ok(Sample::default().with("wall", wall).with("operations", messages))
    }))
}

/// Sends one message there and back on every connection.
fn round(clients: &mut [TcpStream]) -> io::Result<()> {
    clients.iter_mut().try_for_each(|client| client.write_all(&MESSAGE))?;
    for client in clients {
        let mut answer = [0; MESSAGE.len()];
        client.read_exact(&mut answer)?;
        if answer != MESSAGE {
            return Err(io::Error::other("the answer is not what was sent"));
        }
    }
    Ok(())
}

/// Serves on the example's runtime: a task for each connection, a slot for each message.
fn serve(sockets: Vec<TcpStream>) -> io::Result<()> {
    let size = |number: usize| number.try_into().map_err(io::Error::other);
    let builder = FixedArena::with_slot_capacity(size(sockets.len())?, size(4096)?);
    let arena = builder.alignment(4096).build().map_err(io::Error::other)?;
    let runtime = Runtime::new(&arena).map_err(to_io_error)?;
    for socket in sockets {
        let (ring, arena, socket) = (runtime.ring.clone(), arena.clone(), Rc::new(socket));
        runtime.spawn(async move {
            loop {
                let slot = arena.allocate().map_err(io::Error::other)?;
                match ring.read(socket.clone(), slot).await? {
                    (0, _) => return Ok(()),
                    (_, slot) => ring.send(socket.clone(), slot).await?,
                };
            }
        });
    }
    runtime.run()
}
