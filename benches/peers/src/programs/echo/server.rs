//! A server on a thread of its own, and the clients' ends of its connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use crate::harness::Stopwatch;

pub const CONNECTIONS: usize = 32;
pub const MESSAGE_BYTES: usize = 512;
pub const SLOT_BYTES: usize = 4096;

/// Serves these connections until they are closed.
pub type Serve = fn(Vec<TcpStream>) -> io::Result<()>;

pub struct Server {
    clients: Vec<TcpStream>,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    pub fn start(serve: Serve) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut clients, mut sockets) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(listener.local_addr()?)?;
            client.set_nodelay(true)?;
            clients.push(client);
            sockets.push(listener.accept()?.0);
        }
        Ok(Self { clients, thread: thread::spawn(move || serve(sockets)) })
    }

    /// One message there and back on every connection.
    pub fn round(&mut self) -> io::Result<()> {
        let mut message = [0x5A; MESSAGE_BYTES];
        for client in &mut self.clients {
            client.write_all(&message)?;
        }
        for client in &mut self.clients {
            message.fill(0);
            client.read_exact(&mut message)?;
            if message != [0x5A; MESSAGE_BYTES] {
                return Err(io::Error::other("the answer is not what was sent"));
            }
        }
        Ok(())
    }

    /// Processor time of the server alone.
    pub fn stopwatch(&self) -> io::Result<Stopwatch> {
        Stopwatch::of(&self.thread)
    }
}
