//! The limit: READ_FIXED in a loop, into one buffer a read under way, that hands nothing out.
//!
//! # Safety
//!
//! The ring goes before the buffers, and every round reaps all that it pushed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use uring_arena::{Buffer, FixedArena};

use crate::System;
use crate::plan::{BLOCK_BYTES, DEPTH, Places, TestFile, whole};

pub struct Bare {
    ring: IoUring,
    /// Memory of the same kind as the others have; nothing else of the arena is used.
    buffers: Vec<*mut u8>,
    _memory: Vec<Buffer>,
    _file: File,
}

impl Bare {
    pub fn start(test_file: &TestFile) -> io::Result<Bare> {
        let file = test_file.open()?;
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        let arena = FixedArena::with_slot_capacity(
            DEPTH.try_into().map_err(io::Error::other)?,
            BLOCK_BYTES.try_into().map_err(io::Error::other)?,
        );
        let arena = arena.alignment(4096).build().map_err(io::Error::other)?;
        let mut memory: Vec<Buffer> = std::iter::from_fn(|| arena.allocate().ok()).collect();
        let buffers: Vec<*mut u8> = memory.iter_mut().map(Buffer::as_mut_ptr).collect();
        let entries: Vec<_> = buffers
            .iter()
            .map(|start| libc::iovec { iov_base: start.cast(), iov_len: BLOCK_BYTES })
            .collect();
        // SAFETY: the memory outlives the ring.
        unsafe { ring.submitter().register_buffers(&entries)? };
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Bare { ring, buffers, _memory: memory, _file: file })
    }
}

fn push(queue: &mut squeue::SubmissionQueue<'_>, start: *mut u8, slot: u64, place: u64) {
    let read = opcode::ReadFixed::new(types::Fixed(0), start, BLOCK_BYTES as u32, slot as u16);
    let entry = read.offset(place).build().user_data(slot);
    // SAFETY: the buffer of this slot is not in flight, and outlives the ring.
    unsafe { queue.push(&entry) }.expect("more room than reads in flight");
}

impl System for Bare {
    fn name(&self) -> &'static str {
        "bare loop"
    }

    fn read(&mut self, places: &mut Places) -> io::Result<()> {
        let mut in_flight = 0;
        for (slot, place) in places.take(DEPTH).enumerate() {
            push(&mut self.ring.submission(), self.buffers[slot], slot as u64, place);
            in_flight += 1;
        }
        while in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            let (_, mut queue, completions) = self.ring.split();
            for cqe in completions {
                whole(
                    usize::try_from(cqe.result()).map_err(|_| io::Error::from_raw_os_error(-cqe.result())),
                )?;
                let slot = cqe.user_data();
                match places.next() {
                    Some(place) => push(&mut queue, self.buffers[slot as usize], slot, place),
                    None => in_flight -= 1,
                }
            }
        }
        Ok(())
    }
}
