//! Clients and an echo server, with ordinary blocking calls on their own threads.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::support::{Checksum, fill_random, mistake};

pub struct Traffic {
    clients: Vec<Client>,
}

/// The thread of a client. Returns what it sent and what it received.
type Client = JoinHandle<io::Result<(Checksum, Checksum)>>;

impl Traffic {
    /// Starts an echo server on `server`, and clients of `proxy` that send `bytes` bytes together.
    pub fn start(
        server: TcpListener,
        proxy: SocketAddr,
        connections: usize,
        bytes: u64,
    ) -> Result<Traffic, Box<dyn Error>> {
        spawn(move || serve(&server, connections))?;
        let mut clients = Vec::new();
        for client in 0..connections as u64 {
            let part = bytes / connections as u64 + u64::from(client < bytes % connections as u64);
            clients.push(spawn(move || talk(proxy, client, part))?);
        }
        Ok(Traffic { clients })
    }

    /// Returns whether every client has ended.
    pub fn is_over(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Compares what each client sent and received. Returns the bytes that all clients sent.
    pub fn finish(self) -> Result<u64, Box<dyn Error>> {
        let mut all = 0;
        for (number, client) in self.clients.into_iter().enumerate() {
            let ended = client.join().map_err(|_| mistake(format!("client {number} panicked")))?;
            let (sent, received) =
                ended.map_err(|error| mistake(format!("client {number}: {error}")))?;
            if sent != received {
                return Err(mistake(format!("client {number}: sent {sent}, received {received}")));
            }
            all += sent.bytes;
        }
        Ok(all)
    }
}

/// Starts a thread. Returns an error, and not a panic, if the system has no room for one more.
fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    std::thread::Builder::new().stack_size(256 << 10).spawn(body)
}

fn serve(listener: &TcpListener, connections: usize) -> io::Result<()> {
    for _ in 0..connections {
        let (mut socket, _) = listener.accept()?;
        spawn(move || {
            let mut part = vec![0; 64 << 10];
            loop {
                match socket.read(&mut part)? {
                    0 => return Ok(()),
                    read => socket.write_all(&part[..read])?,
                }
            }
        })?;
    }
    Ok(())
}

/// Sends on one thread and receives on another.
fn talk(proxy: SocketAddr, client: u64, bytes: u64) -> io::Result<(Checksum, Checksum)> {
    let socket = TcpStream::connect(proxy)?;
    let reader = socket.try_clone()?;
    let receives = spawn(move || receive(reader))?;
    let sent = send(socket, client, bytes)?;
    let received = receives.join().map_err(|_| io::Error::other("the receiver panicked"))??;
    Ok((sent, received))
}

fn send(mut socket: TcpStream, client: u64, bytes: u64) -> io::Result<Checksum> {
    let mut state = client.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut part = vec![0; 48 << 10];
    let mut sent = Checksum::default();
    while sent.bytes < bytes {
        fill_random(&mut state, &mut part);
        // A random length, so that short sends occur too.
        let len = (state % part.len() as u64 + 1).min(bytes - sent.bytes);
        let part = &part[..len as usize];
        socket.write_all(part)?;
        sent.append(part);
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(mut socket: TcpStream) -> io::Result<Checksum> {
    let mut part = vec![0; 64 << 10];
    let mut received = Checksum::default();
    loop {
        match socket.read(&mut part)? {
            0 => return Ok(received),
            read => received.append(&part[..read]),
        }
    }
}
