//! A sender of random bytes, with ordinary blocking calls on its own thread.

use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use crate::support::{Checksum, fill_random, mistake};

pub struct Sender {
    thread: JoinHandle<io::Result<Checksum>>,
}

impl Sender {
    /// Starts the thread, which connects to `address` and sends `bytes` bytes.
    pub fn start(address: SocketAddr, bytes: u64) -> Sender {
        Sender { thread: std::thread::spawn(move || send(address, bytes)) }
    }

    /// Waits for the thread. Returns the checksum of what it sent.
    pub fn finish(self) -> Result<Checksum, Box<dyn Error>> {
        Ok(self.thread.join().map_err(|_| mistake("the sender panicked"))??)
    }
}

fn send(address: SocketAddr, bytes: u64) -> io::Result<Checksum> {
    let mut socket = TcpStream::connect(address)?;
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut part = vec![0; 1 << 20];
    let mut sent = Checksum::default();
    while sent.bytes < bytes {
        fill_random(&mut state, &mut part);
        let part = &part[..(bytes - sent.bytes).min(1 << 20) as usize];
        socket.write_all(part)?;
        sent.append(part);
    }
    Ok(sent)
}
