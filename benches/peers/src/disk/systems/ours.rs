//! Our pieces on a ring of the program's own: READ_FIXED on the slot's index, frozen to `Bytes`,
//! dropped; a new slot for each read.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::types::Fixed;
use io_uring::{IoUring, squeue};
use uring_arena::{Backing, Completion, FixedArena, InFlight, RegisterOptions, RegisteredArena};

use crate::disk::load::{Load, Places, Reader, open_direct};

/// Builds the memory of all our lines.
pub fn arena(load: Load) -> io::Result<FixedArena> {
    let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = FixedArena::with_slot_capacity(nz(load.buffers())?, nz(load.block_bytes)?);
    let builder = builder.alignment(4096).backing(Backing::TransparentHuge);
    builder.build().map_err(io::Error::other)
}

struct Ours {
    ring: IoUring,
    arena: FixedArena,
    registered: RegisteredArena,
    in_flight: InFlight,
    load: Load,
    places: Places,
    _file: File,
}

pub fn start(path: &Path, load: Load) -> io::Result<Box<dyn Reader>> {
    let (file, bytes) = open_direct(path)?;
    let arena = arena(load)?;
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    // SAFETY: entries go to this ring only, and each completion comes back to `in_flight` once.
    let registered = unsafe { RegisteredArena::register(&ring, &arena, RegisterOptions::new()) };
    let (registered, in_flight) = (registered.map_err(io::Error::other)?, InFlight::new(1));
    let places = Places::new(bytes, load);
    Ok(Box::new(Ours { ring, arena, registered, in_flight, load, places, _file: file }))
}

/// Queues a read of one block into a slot of its own.
fn push(
    queue: &mut squeue::SubmissionQueue<'_>,
    arena: &FixedArena,
    registered: &RegisteredArena,
    in_flight: &mut InFlight,
    place: u64,
) {
    let buffer = arena.allocate().expect("as many slots as reads in flight");
    let (entry, operation) = registered.read(Fixed(0), buffer, place);
    let entry = in_flight.begin(entry, operation);
    // SAFETY: the table keeps the memory, the file is registered as long as the ring.
    unsafe { queue.push(&entry) }.expect("more entries than reads in flight");
}

impl Reader for Ours {
    fn read(&mut self, times: u64) -> io::Result<()> {
        self.places.allow(times);
        for _ in 0..self.load.depth {
            if let Some(place) = self.places.next() {
                let queue = &mut self.ring.submission();
                push(queue, &self.arena, &self.registered, &mut self.in_flight, place);
            }
        }
        while !self.in_flight.is_empty() {
            self.ring.submit_and_wait(1)?;
            let (submitter, mut queue, completions) = self.ring.split();
            for completion in completions {
                // SAFETY: reaped from the ring that the table's entries were pushed to.
                match unsafe { self.in_flight.complete(&completion) } {
                    Completion::Done { result, payload, .. } => {
                        self.load.whole(result?)?;
                        drop(payload.into_bytes());
                    }
                    _ => {
                        return Err(io::Error::other("a completion of nothing that was asked for"));
                    }
                }
                if let Some(place) = self.places.next() {
                    push(&mut queue, &self.arena, &self.registered, &mut self.in_flight, place);
                    // At once, as fio does: the device is not kept waiting for the rest of the
                    // batch.
                    queue.sync();
                    submitter.submit()?;
                }
            }
        }
        Ok(())
    }
}
