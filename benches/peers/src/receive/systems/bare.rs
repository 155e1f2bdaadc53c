//! The limit: a hand-written multishot loop over a buffer ring with DEFER_TASKRUN that hands
//! nothing out; or copies, so that a message may leave.
//!
//! # Safety
//! Buffers and ring memory are owned here and outlive the ring, which is the first field and so
//! dropped first. A buffer is written in the ring again only after its completion was seen.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::receive::receiver::{Outlet, Receiver};
use crate::receive::wire::Shape;

const GROUP: u16 = 0;
const BUFFERS: u16 = 1024;

/// The number of completions that a wait asks for, and the fate of a message.
#[derive(Clone, Copy, PartialEq)]
pub enum Wait {
    One,
    /// As many as there are connections, or what came within 50 µs.
    Many,
    /// The same, and a `Bytes` by copying.
    Copied,
}

struct Bare {
    ring: IoUring,
    buffers: Buffers,
    sockets: Vec<TcpStream>,
    wait: Wait,
    starved: u64,
    outlet: Outlet,
}

/// The buffer ring and what is published in it.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    slot_bytes: usize,
    tail: u16,
}

pub fn start(
    sockets: Vec<TcpStream>,
    shape: Shape,
    outlet: Outlet,
    wait: Wait,
) -> io::Result<Box<dyn Receiver>> {
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(4096)
        .build(1024)?;
    let mut buffers = Buffers::new(shape.slot_bytes())?;
    let address = buffers.entries.as_ptr() as u64;
    // SAFETY: the ring memory is page-aligned, zeroed, and outlives the ring.
    unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
    (0..BUFFERS).for_each(|index| buffers.put(index));
    buffers.publish();
    for (index, socket) in sockets.iter().enumerate() {
        while !arm(&mut ring.submission(), index, socket) {
            ring.submit()?;
        }
    }
    ring.submit()?;
    Ok(Box::new(Bare { ring, buffers, sockets, wait, starved: 0, outlet }))
}

impl Bare {
    fn enter(&mut self) -> io::Result<()> {
        let waited = match self.wait {
            Wait::One => self.ring.submit_and_wait(1),
            Wait::Many | Wait::Copied => {
                let limit = Timespec::new().nsec(50_000);
                let arguments = SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(self.sockets.len(), &arguments)
            }
        };
        match waited {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Queues a multishot receive. Returns `false` if the queue is full.
fn arm(queue: &mut squeue::SubmissionQueue<'_>, index: usize, socket: &TcpStream) -> bool {
    let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
    // SAFETY: the buffers that the entry may use outlive the ring; the socket is open as long as
    // `Bare`.
    unsafe { queue.push(&entry.user_data(index as u64)) }.is_ok()
}

impl Receiver for Bare {
    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let mut got = 0;
        while got < bytes {
            self.enter()?;
            let (submitter, mut submissions, completions) = self.ring.split();
            for completion in completions {
                match completion.result() {
                    length @ 1.. => got += length as usize,
                    result if result == -libc::ENOBUFS => self.starved += 1,
                    result => return Err(io::Error::from_raw_os_error(-result)),
                }
                if let Some(index) = cqueue::buffer_select(completion.flags()) {
                    if self.wait == Wait::Copied {
                        let message = self.buffers.received(index, completion.result().max(0));
                        self.outlet.take(Bytes::copy_from_slice(message));
                    }
                    self.buffers.put(index);
                }
                if !cqueue::more(completion.flags()) {
                    let index = completion.user_data() as usize;
                    while !arm(&mut submissions, index, &self.sockets[index]) {
                        submissions.sync();
                        submitter.submit()?;
                        submissions.sync();
                    }
                }
            }
            self.buffers.publish();
        }
        Ok(())
    }

    fn starved(&self) -> u64 {
        self.starved
    }
}

impl Buffers {
    fn new(slot_bytes: usize) -> io::Result<Self> {
        let page_aligned = |bytes| Layout::from_size_align(bytes, 4096).map_err(io::Error::other);
        let entries_layout = page_aligned(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory_layout = page_aligned(usize::from(BUFFERS) * slot_bytes)?;
        let (entries, memory) =
            // SAFETY: both sizes are above zero.
            unsafe { (alloc_zeroed(entries_layout), alloc_zeroed(memory_layout)) };
        let entries = NonNull::new(entries.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        for page in (0..memory_layout.size()).step_by(4096) {
            // SAFETY: the offset lies inside the block.
            unsafe { memory.add(page).write_volatile(0) };
        }
        Ok(Self { entries, entries_layout, memory, memory_layout, slot_bytes, tail: 0 })
    }

    /// Writes a buffer into the next entry; the kernel sees it after `publish`.
    #[inline]
    fn put(&mut self, index: u16) {
        // SAFETY: the place is inside the ring memory; the kernel does not read it before the tail
        // moves past it.
        let entry = unsafe { self.entries.add(usize::from(self.tail % BUFFERS)).as_mut() };
        // SAFETY: the index came from the kernel or from `0..BUFFERS`, so the offset lies inside
        // the memory.
        let buffer = unsafe { self.memory.add(usize::from(index) * self.slot_bytes) };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(self.slot_bytes as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Returns what the kernel has written into a buffer that it gave back.
    fn received(&self, index: u16, length: i32) -> &[u8] {
        // SAFETY: the index came from the kernel, so the offset lies inside the memory.
        let buffer = unsafe { self.memory.add(usize::from(index) * self.slot_bytes) };
        // SAFETY: zeroed memory, and the kernel writes there again only after `put`.
        unsafe {
            std::slice::from_raw_parts(buffer.as_ptr(), (length as usize).min(self.slot_bytes))
        }
    }

    #[inline]
    fn publish(&mut self) {
        // SAFETY: the tail lies inside the first entry, two-byte aligned; only this thread writes
        // it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        // Release: pairs with the kernel's acquire of the tail; the entries before it are written.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts; the ring that used them is closed and its
        // receives, which copy inside calls of this thread only, are over.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}
