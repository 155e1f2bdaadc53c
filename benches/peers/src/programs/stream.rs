//! The load of the ingesting programs: a thread that sends a stream, and verifies the file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::measure::be_load;

pub const BLOCK_BYTES: usize = 256 << 10;

type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A thread whose time is not the program's. It lives as long as the process.
pub struct Load {
    jobs: Sender<Job>,
    done: Receiver<io::Result<()>>,
}

impl Load {
    pub fn start() -> Self {
        let (jobs, taken) = channel::<Job>();
        let (report, done) = channel();
        thread::spawn(move || {
            be_load();
            taken.into_iter().try_for_each(|job| report.send(job()))
        });
        Self { jobs, done }
    }

    pub fn begin(&self, job: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.jobs.send(Box::new(job)).expect("the thread lives as long as the process");
    }

    pub fn wait(&self) -> io::Result<()> {
        self.done.recv().map_err(io::Error::other)?
    }
}

/// Sends so many bytes, a multiple of the block.
pub fn send(to: SocketAddr, bytes: usize) -> io::Result<()> {
    let block: Vec<u8> = (0..BLOCK_BYTES).map(byte_at).collect();
    let mut socket = TcpStream::connect(to)?;
    (0..bytes / BLOCK_BYTES).try_for_each(|_| socket.write_all(&block))
}

/// Returns what stands at a place of a block.
fn byte_at(place: usize) -> u8 {
    (place * 31 % 251) as u8
}

/// Checks that the file is as long as what was sent, reads it back and compares if asked to, and
/// removes it.
pub fn check_and_remove(path: &Path, bytes: usize, reads_back: bool) -> io::Result<()> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes as u64 {
        return Err(io::Error::other("the file is not as long as what was sent"));
    }
    let mut block = vec![0; BLOCK_BYTES];
    for _ in 0..if reads_back { bytes / BLOCK_BYTES } else { 0 } {
        file.read_exact(&mut block)?;
        if !block.iter().enumerate().step_by(997).all(|(place, &byte)| byte == byte_at(place)) {
            return Err(io::Error::other("the file is not what was sent"));
        }
    }
    fs::remove_file(path)
}
