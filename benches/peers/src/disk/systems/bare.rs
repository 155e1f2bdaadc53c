//! The limit written here: READ_FIXED into registered buffers of a registered file, completions
//! reaped in batches.
//!
//! # Safety
//! The ring is the first field and dropped first; every round reaps all it has submitted, so
//! nothing is in flight then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};

use crate::disk::load::{Load, Places, Reader, open_direct};

use super::aligned::Aligned;

struct Bare {
    ring: IoUring,
    buffers: Vec<Aligned>,
    load: Load,
    places: Places,
    _file: File,
}

pub fn start(path: &Path, load: Load) -> io::Result<Box<dyn Reader>> {
    let (file, bytes) = open_direct(path)?;
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
    let buffers = Aligned::row(load.depth, load.block_bytes);
    let vector = |buffer: &Aligned| libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let vectors: Vec<_> = buffers.iter().map(vector).collect();
    // SAFETY: the buffers outlive the ring.
    unsafe { ring.submitter().register_buffers(&vectors)? };
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    Ok(Box::new(Bare { ring, buffers, load, places: Places::new(bytes, load), _file: file }))
}

/// Queues a read of one block into one buffer.
fn push(queue: &mut squeue::SubmissionQueue<'_>, buffers: &[Aligned], slot: usize, place: u64) {
    let buffer = &buffers[slot];
    let entry =
        opcode::ReadFixed::new(Fixed(0), buffer.as_mut_ptr(), buffer.len() as u32, slot as u16);
    let entry = entry.offset(place).build().user_data(slot as u64);
    // SAFETY: the buffer of this slot is not in flight, and outlives the ring.
    unsafe { queue.push(&entry) }.expect("more entries than reads in flight");
}

impl Reader for Bare {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        let mut in_flight = 0;
        for slot in 0..self.load.depth {
            if let Some(place) = self.places.next() {
                push(&mut self.ring.submission(), &self.buffers, slot, place);
                in_flight += 1;
            }
        }
        while in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            let (submitter, mut queue, completions) = self.ring.split();
            for completion in completions {
                let result = completion.result();
                let length = usize::try_from(result);
                self.load.whole(length.map_err(|_| io::Error::from_raw_os_error(-result))?)?;
                match self.places.next() {
                    Some(place) => {
                        push(&mut queue, &self.buffers, completion.user_data() as usize, place);
                        // At once, as fio does.
                        queue.sync();
                        submitter.submit()?;
                    }
                    None => in_flight -= 1,
                }
            }
        }
        Ok(())
    }
}
