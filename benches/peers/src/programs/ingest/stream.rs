//! The stream: who sends it, and whether all of it arrived.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

pub const BLOCK_BYTES: usize = 256 << 10;

/// Processor time so far in seconds: of the process, or of this thread.
pub fn processor_seconds(whose: libc::c_int) -> f64 {
    // SAFETY: integers only: all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the right type.
    unsafe { libc::getrusage(whose, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// A thread that sends so many bytes, a multiple of the block, and the socket where they arrive.
/// The thread gives the processor time that this took it.
pub fn begin(bytes: usize) -> io::Result<(TcpStream, JoinHandle<io::Result<f64>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || send(address, bytes));
    Ok((listener.accept()?.0, sender))
}

fn send(to: SocketAddr, bytes: usize) -> io::Result<f64> {
    let block: Vec<u8> = (0..BLOCK_BYTES).map(byte_at).collect();
    let mut socket = TcpStream::connect(to)?;
    for _ in 0..bytes / BLOCK_BYTES {
        socket.write_all(&block)?;
    }
    Ok(processor_seconds(libc::RUSAGE_THREAD))
}

/// What stands at a place of a block.
fn byte_at(place: usize) -> u8 {
    (place * 31 % 251) as u8
}

/// Both sides must have done the work.
pub fn verify(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    for _ in 0..bytes / BLOCK_BYTES {
        file.read_exact(&mut block)?;
        if !block.iter().enumerate().step_by(997).all(|(place, &byte)| byte == byte_at(place)) {
            return Err(io::Error::other("the file is not what was sent"));
        }
    }
    match file.read(&mut block)? {
        0 => Ok(()),
        _ => Err(io::Error::other("more was written than sent")),
    }
}
