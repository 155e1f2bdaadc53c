//! The limit: a multishot loop on the bare crate, by hand. It looks at every length and publishes every slot again at once; it
//! hands nothing out, so nothing of it could be used.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, cqueue, opcode, types};

use crate::{SLOT_BYTES, SLOTS, System};

pub struct Bare {
    uring: IoUring,
    posted: Posted,
    sockets: Vec<TcpStream>,
}

/// The array of entries, and the slots behind it.
struct Posted {
    entries: *mut types::BufRingEntry,
    slots: *mut u8,
    tail: u16,
}

impl Bare {
    pub fn new(sockets: Vec<TcpStream>) -> io::Result<Bare> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(1024)
            .build(256)?;
        let layout = Layout::from_size_align(SLOTS * size_of::<types::BufRingEntry>(), 4096).expect("a size");
        // SAFETY: not of size zero. Never given back: one a process.
        let entries: *mut types::BufRingEntry = unsafe { std::alloc::alloc_zeroed(layout) }.cast();
        let slots = Box::leak(vec![0u8; SLOTS * SLOT_BYTES].into_boxed_slice()).as_mut_ptr();
        // SAFETY: page-aligned, as long as said, and never given back.
        unsafe { uring.submitter().register_buf_ring_with_flags(entries as u64, SLOTS as u16, 0, 0)? };
        let mut posted = Posted { entries, slots, tail: 0 };
        for id in 0..SLOTS as u16 {
            posted.post(id);
        }
        posted.publish();
        let mut bare = Bare { uring, posted, sockets };
        for socket in 0..bare.sockets.len() {
            bare.arm(socket);
        }
        bare.uring.submit()?;
        Ok(bare)
    }

    fn arm(&mut self, socket: usize) {
        let fd = types::Fd(self.sockets[socket].as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, 0).build().user_data(socket as u64);
        // SAFETY: the socket lives as long as the ring, the slots for ever.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit().expect("submits");
        }
    }
}

impl Posted {
    fn post(&mut self, id: u16) {
        let place = self.tail as usize % SLOTS;
        // SAFETY: inside the array.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY: as above; this entry is not the kernel's now.
        let entry = unsafe { &mut *entry };
        // SAFETY: inside the slots.
        let slot = unsafe { self.slots.add(id as usize * SLOT_BYTES) };
        entry.set_addr(slot as u64);
        entry.set_len(SLOT_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the first entry of the array.
        let tail = unsafe { types::BufRingEntry::tail(self.entries) };
        // SAFETY: aligned, and lives for ever.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl System for Bare {
    fn name(&self) -> &'static str {
        "bare loop"
    }

    fn drain(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            self.uring.submit_and_wait(1).expect("waits");
            for completion in self.uring.completion() {
                left -= usize::try_from(completion.result()).expect("bytes");
                self.posted.post(cqueue::buffer_select(completion.flags()).expect("a buffer"));
                assert!(cqueue::more(completion.flags()), "with as many slots as this it stays armed");
            }
            self.posted.publish();
        }
    }
}
