//! Where the blocks go: a thread that takes the checksum, in order. And the ordinary read that it
//! is compared with.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

/// Length and checksum of what was read.
#[derive(Default, PartialEq, Eq)]
pub struct Summary {
    pub bytes: u64,
    pub crc: u32,
}

impl Summary {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with CRC-32C {:08x}", self.bytes, self.crc)
    }
}

pub struct Consumer {
    thread: JoinHandle<Summary>,
}

impl Consumer {
    /// Starts the thread; a block is in its queue until it takes it, and `depth` at most.
    pub fn start(depth: usize) -> (SyncSender<Bytes>, Consumer) {
        let (queue, blocks) = sync_channel::<Bytes>(depth.max(2) - 1);
        let thread = std::thread::spawn(move || {
            let mut summary = Summary::default();
            // Each block is dropped here, on this thread: its slot is free at once.
            for block in blocks {
                summary.add(&block);
            }
            summary
        });
        (queue, Consumer { thread })
    }

    pub fn finish(self) -> Summary {
        self.thread.join().expect("the consumer does not panic")
    }
}

/// The first `len` bytes of a file, through the page cache.
pub fn read_ordinarily(path: &Path, len: u64) -> std::io::Result<Summary> {
    let mut summary = Summary::default();
    let mut file = File::open(path)?.take(len);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(summary),
            read => summary.add(&block[..read]),
        }
    }
}
