//! Clients, and an echoing server, with the ordinary blocking calls on threads of their own.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::support::mistake;

/// Bytes and their checksum.
type Sum = (u64, u32);

pub struct Traffic {
    server: String,
    clients: Vec<Client>,
}

/// The threads that send and receive for one client.
type Client = (JoinHandle<io::Result<Sum>>, JoinHandle<io::Result<Sum>>);

impl Traffic {
    /// Starts the server, and clients that connect to `proxy`; they send `bytes` bytes together.
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

    /// Compares what each client got back with what it sent. Gives the bytes of all.
    pub fn finish(self) -> Result<u64, Box<dyn Error>> {
        let mut all = 0;
        for (client, (sends, receives)) in self.clients.into_iter().enumerate() {
            let panicked = |_| mistake("a client panicked");
            let (sent, received) =
                (sends.join().map_err(panicked)??, receives.join().map_err(panicked)??);
            if sent != received {
                return Err(mistake(format!(
                    "client {client}: sent {} bytes ({:08x}), got {} bytes ({:08x}) back",
                    sent.0, sent.1, received.0, received.1
                )));
            }
            all += sent.0;
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

fn send(mut socket: TcpStream, client: u64, bytes: u64) -> io::Result<Sum> {
    let mut state = client.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut part = vec![0; 48 << 10];
    let (mut left, mut crc) = (bytes, 0);
    while left > 0 {
        for word in part.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        // Lengths of every kind, short ones too.
        let len = (state % part.len() as u64 + 1).min(left);
        let part = &part[..len as usize];
        socket.write_all(part)?;
        crc = crc32c::crc32c_append(crc, part);
        left -= len;
    }
    socket.shutdown(Shutdown::Write)?;
    Ok((bytes, crc))
}

fn receive(mut socket: TcpStream) -> io::Result<Sum> {
    let mut part = vec![0; 64 << 10];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        match socket.read(&mut part)? {
            0 => return Ok((bytes, crc)),
            read => {
                bytes += read as u64;
                crc = crc32c::crc32c_append(crc, &part[..read]);
            }
        }
    }
}
