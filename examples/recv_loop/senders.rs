//! Senders of a file, over and over, from a different offset for each connection.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::support::{Checksum, mistake};

/// The number of sending threads, each of which serves its share of the connections.
const THREADS_MAX: usize = 4;

/// The number of bytes written to a connection before the next connection is served.
const TURN_BYTES: usize = 256 << 10;

/// The checksums of the bytes sent, with the number of the connection.
type Sent = Vec<(usize, Checksum)>;

pub struct Senders {
    threads: Vec<JoinHandle<io::Result<Sent>>>,
    connections: usize,
}

/// A connection and what is left to send on it.
struct Outgoing {
    number: usize,
    socket: TcpStream,
    /// The offset in the file of the next byte.
    at: u64,
    /// The number of bytes left to send.
    left: u64,
    sent: Checksum,
}

impl Senders {
    /// Starts threads that send `bytes` bytes over all of `sockets` together.
    pub fn start(
        sockets: Vec<TcpStream>,
        path: &Path,
        bytes: u64,
    ) -> Result<Senders, Box<dyn Error>> {
        let name = path.display();
        let file = File::open(path).map_err(|error| {
            mistake(format!("--file {name}: {error}; name a file that can be read"))
        })?;
        let file_bytes = file.metadata()?.len();
        if !file.metadata()?.is_file() || file_bytes == 0 {
            return Err(mistake(format!(
                "--file {name}: nothing to send; name a regular file that is not empty"
            )));
        }
        let connections = sockets.len();
        let mut shares: Vec<Vec<Outgoing>> =
            (0..connections.min(THREADS_MAX)).map(|_| Vec::new()).collect();
        for (number, socket) in sockets.into_iter().enumerate() {
            let (each, rest) = (bytes / connections as u64, bytes % connections as u64);
            let left = each + u64::from((number as u64) < rest);
            // The offsets are far apart and unaligned, so that a byte in the wrong stream or at the
            // wrong offset shows.
            let at = (number as u64).wrapping_mul(999_983) % file_bytes;
            let share = number % shares.len();
            shares[share].push(Outgoing { number, socket, at, left, sent: Checksum::default() });
        }
        let file = Arc::new(file);
        let threads = shares
            .into_iter()
            .map(|share| {
                let file = Arc::clone(&file);
                thread::spawn(move || send_all(&file, file_bytes, share))
            })
            .collect();
        Ok(Senders { threads, connections })
    }

    /// Waits for the threads. Returns the checksum of each connection.
    pub fn finish(self) -> Result<Vec<Checksum>, Box<dyn Error>> {
        let mut sent = vec![Checksum::default(); self.connections];
        for thread in self.threads {
            let share = thread.join().map_err(|_| mistake("a sender panicked"))?;
            for (number, stream) in
                share.map_err(|error| mistake(format!("sending failed: {error}")))?
            {
                sent[number] = stream;
            }
        }
        Ok(sent)
    }
}

fn send_all(file: &File, file_bytes: u64, mut share: Vec<Outgoing>) -> io::Result<Sent> {
    let mut chunk = vec![0; TURN_BYTES];
    let mut done = Vec::with_capacity(share.len());
    while !share.is_empty() {
        for outgoing in &mut share {
            let len = outgoing.left.min(TURN_BYTES as u64).min(file_bytes - outgoing.at) as usize;
            let chunk = &mut chunk[..len];
            file.read_exact_at(chunk, outgoing.at)?;
            outgoing.socket.write_all(chunk)?;
            outgoing.sent.append(chunk);
            outgoing.left -= len as u64;
            outgoing.at = (outgoing.at + len as u64) % file_bytes;
        }
        // The drop of a socket ends its stream.
        let finished = share.extract_if(.., |outgoing| outgoing.left == 0);
        done.extend(finished.map(|outgoing| (outgoing.number, outgoing.sent)));
    }
    Ok(done)
}
