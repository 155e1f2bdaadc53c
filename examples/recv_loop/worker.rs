//! The other thread: takes the checksum of every stream and drops the bytes, which frees their
//! slots.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

/// What came over one connection, or went into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    pub bytes: u64,
    crc: u32,
}

impl Stream {
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, CRC-32C {:08x}", self.bytes, self.crc)
    }
}

/// What the receiving thread hands over.
pub enum Work {
    Opened { name: String },
    Bytes { stream: usize, bytes: Bytes },
    Closed { stream: usize, error: Option<io::Error> },
}

pub struct Worker {
    thread: JoinHandle<Vec<Stream>>,
    dropped: Arc<AtomicU64>,
}

impl Worker {
    /// A worker that knows `streams` streams from the start; others it is told of.
    pub fn start(streams: usize) -> (Sender<Work>, Worker) {
        let (sender, queue) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let thread =
            thread::spawn(move || work(&queue, vec![Stream::default(); streams], &counter));
        (sender, Worker { thread, dropped })
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> u64 {
        // Relaxed: a count to show, nothing hangs on it.
        self.dropped.load(Ordering::Relaxed)
    }

    /// What came, by stream, when every sender of work is gone.
    pub fn finish(self) -> Vec<Stream> {
        self.thread.join().unwrap_or_default()
    }
}

fn work(queue: &Receiver<Work>, mut streams: Vec<Stream>, dropped: &AtomicU64) -> Vec<Stream> {
    let mut names = Vec::new();
    for work in queue {
        match work {
            Work::Opened { name } => {
                names.push(name);
                streams.push(Stream::default());
            }
            Work::Bytes { stream, bytes } => {
                streams[stream].append(&bytes);
                // Counted before it is dropped: its slot may be in use again right after.
                dropped.fetch_add(1, Ordering::Relaxed);
                drop(bytes);
            }
            Work::Closed { stream, error } => {
                let end = error.map_or(String::new(), |error| format!(", then: {error}"));
                println!("{}: {}{end}", names[stream], streams[stream]);
            }
        }
    }
    streams
}
