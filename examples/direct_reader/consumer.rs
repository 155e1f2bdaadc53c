//! The consumer of the blocks: a thread that computes their checksum in order.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::support::Checksum;

pub struct Consumer {
    thread: JoinHandle<Checksum>,
}

impl Consumer {
    /// Starts the thread. Its queue holds at most `depth - 1` blocks, and at least one.
    pub fn start(depth: usize) -> (SyncSender<Bytes>, Consumer) {
        let (queue, blocks) = sync_channel::<Bytes>(depth.max(2) - 1);
        let thread = std::thread::spawn(move || {
            let mut checksum = Checksum::default();
            // Each iteration drops a block on this thread, which frees its slot at once.
            for block in blocks {
                checksum.append(&block);
            }
            checksum
        });
        (queue, Consumer { thread })
    }

    pub fn finish(self) -> Checksum {
        self.thread.join().expect("the consumer does not panic")
    }
}
