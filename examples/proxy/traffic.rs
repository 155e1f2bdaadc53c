//! Clients and an echo server, with ordinary blocking calls on their own threads.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::support::{Checksum, fill_random, mistake};

pub struct Traffic {
    server: String,
    clients: Vec<Client>,
}

/// The thread that sends and the thread that receives for one client.
type Client = (JoinHandle<io::Result<Checksum>>, JoinHandle<io::Result<Checksum>>);

impl Traffic {
    /// Starts the server, and clients that connect to `proxy` and send `bytes` bytes together.
    pub fn start(
        proxy: SocketAddr,
        connections: usize,
        bytes: u64,
    ) -> Result<Traffic, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = listener.local_addr()?.to_string();
        std::thread::spawn(move || serve(&listener, connections));
        let mut clients = Vec::new();
        for client in 0..connections as u64 {
            let part = bytes / connections as u64 + u64::from(client < bytes % connections as u64);
            let socket = TcpStream::connect(proxy)?;
            let reader = socket.try_clone()?;
            let sends = std::thread::spawn(move || send(socket, client, part));
            let receives = std::thread::spawn(move || receive(reader));
            clients.push((sends, receives));
        }
        Ok(Traffic { server, clients })
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    /// Compares what each client sent and received. Returns the bytes that all clients sent.
    pub fn finish(self) -> Result<u64, Box<dyn Error>> {
        let mut all = 0;
        for (client, (sends, receives)) in self.clients.into_iter().enumerate() {
            let panicked = |_| mistake("a client panicked");
            let (sent, received) =
                (sends.join().map_err(panicked)??, receives.join().map_err(panicked)??);
            if sent != received {
                return Err(mistake(format!("client {client}: sent {sent}, received {received}")));
            }
            all += sent.bytes;
        }
        Ok(all)
    }
}

fn serve(listener: &TcpListener, connections: usize) -> io::Result<()> {
    for _ in 0..connections {
        let (mut socket, _) = listener.accept()?;
        std::thread::spawn(move || {
            let mut part = vec![0; 64 << 10];
            loop {
                match socket.read(&mut part)? {
                    0 => return Ok::<_, io::Error>(()),
                    read => socket.write_all(&part[..read])?,
                }
            }
        });
    }
    Ok(())
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
