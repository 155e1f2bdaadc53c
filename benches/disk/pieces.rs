//! Our pieces on a ring of one's own: a slot for each read, frozen to `ArenaBytes`, dropped.
//!
//! # Safety
//!
//! Entries go to the one ring, and completions to the table of its operations.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, squeue, types};
use uring_arena::{Completion, FixedArena, InFlight, Payload, RegisteredArena, Rung};

use crate::System;
use crate::plan::{BLOCK_BYTES, DEPTH, Places, TestFile, whole};

pub struct Pieces {
    ring: IoUring,
    reads: Reads,
    _file: File,
}

struct Reads {
    arena: FixedArena,
    registered: RegisteredArena,
    in_flight: InFlight,
}

impl Pieces {
    pub fn start(test_file: &TestFile) -> io::Result<Pieces> {
        let file = test_file.open()?;
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let arena = FixedArena::with_slot_capacity(
            DEPTH.try_into().map_err(io::Error::other)?,
            BLOCK_BYTES.try_into().map_err(io::Error::other)?,
        );
        let arena = arena.alignment(4096).build().map_err(io::Error::other)?;
        // SAFETY: entries go to this ring only, and completions to the table, which knows them.
        let registered = unsafe { RegisteredArena::register(&ring, &arena, Rung::Slots) };
        let registered = registered.map_err(io::Error::other)?;
        Ok(Pieces { ring, reads: Reads { arena, registered, in_flight: InFlight::new(1) }, _file: file })
    }
}

impl Reads {
    fn push(&mut self, queue: &mut squeue::SubmissionQueue<'_>, place: u64) {
        let buffer = self.arena.allocate().expect("as many slots as reads");
        let (entry, operation) = self.registered.read(types::Fixed(0), buffer, place);
        let entry = self.in_flight.begin(entry, operation);
        // SAFETY: the table owns the memory, and the file is registered for as long as the ring lives.
        unsafe { queue.push(&entry) }.expect("more room than reads in flight");
    }
}

impl System for Pieces {
    fn name(&self) -> &'static str {
        "pieces, ArenaBytes out"
    }

    fn read(&mut self, places: &mut Places) -> io::Result<()> {
        for place in places.take(DEPTH) {
            self.reads.push(&mut self.ring.submission(), place);
        }
        while !self.reads.in_flight.is_empty() {
            self.ring.submit_and_wait(1)?;
            let (_, mut queue, completions) = self.ring.split();
            for cqe in completions {
                // SAFETY: reaped from the ring that the table's entries are pushed to.
                match unsafe { self.reads.in_flight.complete(&cqe) } {
                    Completion::Done { result, payload: Payload::Buffer(buffer), .. } => {
                        whole(result)?;
                        drop(std::hint::black_box(buffer.freeze_in_place()));
                    }
                    other => return Err(io::Error::other(format!("{other:?}"))),
                }
                if let Some(place) = places.next() {
                    self.reads.push(&mut queue, place);
                }
            }
        }
        Ok(())
    }
}
