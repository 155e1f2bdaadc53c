//! The echo server by hand: a buffer for each connection, a read, a send, a read.
//!
//! # Safety
//!
//! The ring goes before the buffers and the sockets, and returns when nothing is in flight.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

const SLOT_BYTES: usize = 4096;

/// A mark in the `user_data` of sends.
const SEND: u64 = 1 << 32;

pub fn serve(sockets: Vec<TcpStream>) -> io::Result<()> {
    let mut memory = vec![0u8; (sockets.len() + 1) * SLOT_BYTES];
    let before = memory.as_ptr().align_offset(SLOT_BYTES);
    let start = memory.as_mut_ptr().wrapping_add(before);
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
    let entries: Vec<_> = (0..sockets.len())
        .map(|at| libc::iovec {
            iov_base: start.wrapping_add(at * SLOT_BYTES).cast(),
            iov_len: SLOT_BYTES,
        })
        .collect();
    // SAFETY: the memory outlives the ring.
    unsafe { ring.submitter().register_buffers(&entries)? };
    let read = |at: usize| {
        let buffer = start.wrapping_add(at * SLOT_BYTES);
        let fd = types::Fd(sockets[at].as_raw_fd());
        opcode::ReadFixed::new(fd, buffer, SLOT_BYTES as u32, at as u16)
            .build()
            .user_data(at as u64)
    };
    let send = |at: usize, len: u32| {
        let fd = types::Fd(sockets[at].as_raw_fd());
        let send = opcode::Send::new(fd, start.wrapping_add(at * SLOT_BYTES), len);
        send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build().user_data(at as u64 | SEND)
    };
    for at in 0..sockets.len() {
        push(&mut ring.submission(), &read(at));
    }
    let mut open = sockets.len();
    while open > 0 {
        ring.submit_and_wait(1)?;
        let (_, mut queue, completions) = ring.split();
        for cqe in completions {
            let at = cqe.user_data() as u32 as usize;
            match (cqe.user_data() & SEND != 0, u32::try_from(cqe.result())) {
                (true, Ok(_)) => push(&mut queue, &read(at)),
                (false, Ok(len)) if len > 0 => push(&mut queue, &send(at, len)),
                _ => open -= 1,
            }
        }
    }
    Ok(())
}

fn push(queue: &mut squeue::SubmissionQueue<'_>, entry: &squeue::Entry) {
    // SAFETY: one operation at a time for each buffer; memory and sockets outlive the ring.
    unsafe { queue.push(entry) }.expect("more room than connections");
}
