//! The worker thread, which computes checksums and drops the bytes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::support::{Checksum, say};

/// A message from the receiving thread. Streams have numbers, which are not used again.
pub enum Work {
    Bytes { stream: u64, bytes: Bytes },
    Closed { stream: u64, name: String, error: Option<io::Error> },
}

pub struct Worker {
    thread: JoinHandle<HashMap<u64, Checksum>>,
    dropped: Arc<AtomicU64>,
}

impl Worker {
    /// Starts the thread.
    pub fn start() -> (Sender<Work>, Worker) {
        let (sender, queue) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let thread = thread::spawn(move || work(&queue, &counter));
        (sender, Worker { thread, dropped })
    }

    /// Returns the number of messages dropped so far.
    pub fn dropped(&self) -> u64 {
        // Relaxed: the count is only printed, and orders nothing.
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every sender of work is gone. Returns the checksums of the streams that are not
    /// closed.
    pub fn finish(self) -> HashMap<u64, Checksum> {
        self.thread.join().unwrap_or_default()
    }
}

fn work(queue: &Receiver<Work>, dropped: &AtomicU64) -> HashMap<u64, Checksum> {
    let mut streams = HashMap::<u64, Checksum>::new();
    for work in queue {
        match work {
            Work::Bytes { stream, bytes } => {
                streams.entry(stream).or_default().append(&bytes);
                // Counted before the drop, because the slot may be in use again right after it.
                dropped.fetch_add(1, Ordering::Relaxed);
                drop(bytes);
            }
            Work::Closed { stream, name, error } => {
                let end = error.map_or(String::new(), |error| format!(", then failed: {error}"));
                say!("{name}: {}{end}", streams.remove(&stream).unwrap_or_default());
            }
        }
    }
    streams
}
