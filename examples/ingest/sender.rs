//! A sender of our own, with the ordinary blocking calls on a thread of its own.

use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use crate::support::mistake;

pub struct Sender {
    thread: JoinHandle<io::Result<(u64, u32)>>,
}

impl Sender {
    pub fn start(address: SocketAddr, bytes: u64) -> Sender {
        Sender { thread: std::thread::spawn(move || send(address, bytes)) }
    }

    /// Bytes sent, and their checksum.
    pub fn finish(self) -> Result<(u64, u32), Box<dyn Error>> {
        Ok(self.thread.join().map_err(|_| mistake("the sender panicked"))??)
    }
}

fn send(address: SocketAddr, bytes: u64) -> io::Result<(u64, u32)> {
    let mut socket = TcpStream::connect(address)?;
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut part = vec![0; 1 << 20];
    let (mut left, mut crc) = (bytes, 0);
    while left > 0 {
        for word in part.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = &part[..left.min(1 << 20) as usize];
        socket.write_all(part)?;
        crc = crc32c::crc32c_append(crc, part);
        left -= part.len() as u64;
    }
    Ok((bytes, crc))
}
