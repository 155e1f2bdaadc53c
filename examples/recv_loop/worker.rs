//! The worker thread, which computes checksums and drops the bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::support::Checksum;

/// A message from the receiving thread.
pub enum Work {
    Opened { name: String },
    Bytes { stream: usize, bytes: Bytes },
    Closed { stream: usize, error: Option<io::Error> },
}

pub struct Worker {
    thread: JoinHandle<Vec<Checksum>>,
    dropped: Arc<AtomicU64>,
}

impl Worker {
    /// Starts the thread with `streams` open streams. [`Work::Opened`] adds one.
    pub fn start(streams: usize) -> (Sender<Work>, Worker) {
        let (sender, queue) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let thread =
            thread::spawn(move || work(&queue, vec![Checksum::default(); streams], &counter));
        (sender, Worker { thread, dropped })
    }

    /// Returns the number of messages dropped so far.
    pub fn dropped(&self) -> u64 {
        // Relaxed: the count is only printed, and orders nothing.
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every sender of work is gone. Returns the checksum of each stream.
    pub fn finish(self) -> Vec<Checksum> {
        self.thread.join().unwrap_or_default()
    }
}

fn work(queue: &Receiver<Work>, mut streams: Vec<Checksum>, dropped: &AtomicU64) -> Vec<Checksum> {
    let mut names = Vec::new();
    for work in queue {
        match work {
            Work::Opened { name } => {
                names.push(name);
                streams.push(Checksum::default());
            }
            Work::Bytes { stream, bytes } => {
                streams[stream].append(&bytes);
                // Counted before the drop, because the slot may be in use again right after it.
                dropped.fetch_add(1, Ordering::Relaxed);
                drop(bytes);
            }
            Work::Closed { stream, error } => {
                let end = error.map_or(String::new(), |error| format!(", then failed: {error}"));
                println!("{}: {}{end}", names[stream], streams[stream]);
            }
        }
    }
    streams
}
