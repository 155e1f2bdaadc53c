//! Sends: zero-copy from a registered buffer where that pays, ordinary ones otherwise.
//!
//! # Safety
//!
//! Unsafe here: one field of an entry that the io-uring crate gives no name, and an empty message
//! header.
#![allow(unsafe_code)]

use io_uring::{opcode, squeue};

use super::descriptor::build;
use super::fixed::{Spans, one_span};
use super::memory::Memory;
use super::operation::{Kind, Lists};
use super::probe::SEND_ZC_REPORT_USAGE;
use super::{Descriptor, Feature, Operation, RegisteredArena};

/// `IORING_RECVSEND_FIXED_BUF`.
const RECVSEND_FIXED_BUF: u16 = 4;

/// Bytes that one send carries at most: what fits the kernel's `int` results with room to spare.
const SEND_BYTES_MAX: usize = 1 << 30;

/// How bytes shall be sent.
///
/// ```
/// use uring_arena::SendOptions;
///
/// let always = SendOptions::new().zero_copy_from(1);
/// let never = SendOptions::new().zero_copy_from(usize::MAX);
/// # let _ = (always, never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    zero_copy_from: usize,
    wait_all: bool,
    more_to_come: bool,
}

impl SendOptions {
    /// Zero-copy from [`ZERO_COPY_FROM`](Self::ZERO_COPY_FROM) bytes on.
    pub fn new() -> SendOptions {
        SendOptions {
            zero_copy_from: SendOptions::ZERO_COPY_FROM,
            wait_all: false,
            more_to_come: false,
        }
    }

    /// Below this many bytes a zero-copy send costs more than the copy that it saves: pages to
    /// count, a notification to take in, and memory that stays out until the peer has acknowledged
    /// the bytes.
    ///
    /// Measured (`benches/peers`, Linux 6.18) it costs 1.1 µs a send and 0.06 µs a KiB: what
    /// copying 10 to 20 KiB takes at 5 to 10 GB/s. **Loopback always copies**, so there a zero-copy
    /// send only costs: 1.12 times the processor time of an ordinary one at 4 KiB, 1.36 times at 64
    /// KiB. Sending to the same machine, set the threshold to `usize::MAX`; the `copied` of a
    /// finished send tells where that holds.
    pub const ZERO_COPY_FROM: usize = 16 << 10;

    /// Sends of this many bytes and more are zero-copy, where kernel and registration allow it.
    #[must_use]
    pub fn zero_copy_from(mut self, bytes: usize) -> SendOptions {
        self.zero_copy_from = bytes;
        self
    }

    /// Completes only when all is sent, or the connection fails (`MSG_WAITALL`). Otherwise a send
    /// may be short.
    #[must_use]
    pub fn wait_all(mut self) -> SendOptions {
        self.wait_all = true;
        self
    }

    /// More will follow at once: the kernel may hold a partial segment back (`MSG_MORE`).
    #[must_use]
    pub fn more_to_come(mut self) -> SendOptions {
        self.more_to_come = true;
        self
    }

    /// Never a signal: a broken connection is an error of the operation.
    fn flags(self) -> i32 {
        let mut flags = libc::MSG_NOSIGNAL;
        if self.wait_all {
            flags |= libc::MSG_WAITALL;
        }
        if self.more_to_come {
            flags |= libc::MSG_MORE;
        }
        flags
    }
}

impl Default for SendOptions {
    fn default() -> SendOptions {
        SendOptions::new()
    }
}

impl RegisteredArena {
    /// Sends what the memory holds on a connected socket.
    ///
    /// Zero-copy (`IORING_OP_SEND_ZC`, Linux 6.0) if the memory lies in the registered arena and is
    /// not below the threshold; an ordinary send otherwise. A zero-copy send completes twice: with
    /// its result, which gives [`Progress::More`](crate::Progress::More), and with the notification
    /// that the kernel is done with the memory; also when it fails half-way. The end says whether
    /// the kernel copied after all (Linux 6.2), as it does on loopback. See
    /// [io_uring_prep_send_zc(3)](https://man7.org/linux/man-pages/man3/io_uring_prep_send_zc.3.html).
    ///
    /// A vector of pieces goes out as one message, zero-copy if one entry of the table holds them
    /// all (Linux 6.15).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use bytes::BufMut;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationMode, SendOptions};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, and each completion comes back to its operation once.
    /// # let registered = unsafe { RegisteredArena::register(&ring, &arena, RegistrationMode::Best)? };
    /// let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"hello");
    /// let (entry, operation) = registered.send(&socket, buffer, SendOptions::new());
    /// assert!(!operation.is_zero_copy(), "five bytes are cheaper to copy");
    /// # // SAFETY: the operation keeps the memory, the socket stays open until the completion.
    /// # unsafe { ring.submission().push(&entry)? };
    /// # ring.submit_and_wait(1)?;
    /// # let cqe = ring.completion().next().unwrap();
    /// # // SAFETY: the only completion of the only entry.
    /// # let Progress::Done { result, .. } = (unsafe { operation.complete(&cqe) }) else { unreachable!() };
    /// # assert_eq!(result?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send<M: Memory>(
        &self,
        socket: impl Into<Descriptor>,
        memory: M,
        options: SendOptions,
    ) -> (squeue::Entry, Operation<M>) {
        self.send_from(socket.into(), memory, options, 0)
    }

    /// Sends what the memory holds behind its first `skip` bytes. A list is sent whole.
    pub(crate) fn send_from<M: Memory>(
        &self,
        socket: Descriptor,
        memory: M,
        options: SendOptions,
        skip: usize,
    ) -> (squeue::Entry, Operation<M>) {
        if M::IS_LIST {
            return self.send_list(socket, memory, options);
        }
        let span = one_span(|each| memory.written(each), SEND_BYTES_MAX).after(skip);
        let (start, len) = (span.start.as_ptr().cast_const(), span.len as u32);
        let index = if span.len >= options.zero_copy_from && self.probe().has(Feature::SendZc) {
            self.index_of(start, span.len)
        } else {
            None
        };
        let flags = options.flags();
        let Some(index) = index else {
            let entry = build!(socket, fd => opcode::Send::new(fd, start, len).flags(flags));
            return (entry, self.operation(memory, Kind::Write, None, len));
        };
        let tells_usage = self.probe().has(Feature::SendZcUsage);
        let zc_flags = if tells_usage { SEND_ZC_REPORT_USAGE } else { 0 };
        let entry = build!(socket, fd => opcode::SendZc::new(fd, start, len)
            .buf_index(Some(index))
            .zc_flags(zc_flags)
            .flags(flags));
        (entry, self.operation(memory, Kind::SendZc { tells_usage }, Some(index), len))
    }

    /// Several pieces as one message: zero-copy if one entry of the table holds them all and they
    /// are worth it (Linux 6.15).
    fn send_list<M: Memory>(
        &self,
        socket: Descriptor,
        memory: M,
        options: SendOptions,
    ) -> (squeue::Entry, Operation<M>) {
        let spans = Spans::written(&memory);
        let index =
            match spans.len >= options.zero_copy_from && self.probe().has(Feature::SendMsgZc) {
                true => self.common_index(&spans),
                false => None,
            };
        let (mut ranges, requested) = (spans.list(), spans.len as u32);
        let message = Box::new(message_of(&mut ranges));
        let (pointer, flags) = (&raw const *message, options.flags() as u32);
        let lists = Lists { ranges, message: Some(message) };
        let Some(index) = index else {
            let entry = build!(socket, fd => opcode::SendMsg::new(fd, pointer).flags(flags));
            return (entry, self.vectored(memory, Kind::Write, None, requested, lists));
        };
        let tells_usage = self.probe().has(Feature::SendZcUsage);
        let zc_flags = RECVSEND_FIXED_BUF | if tells_usage { SEND_ZC_REPORT_USAGE } else { 0 };
        let mut entry =
            build!(socket, fd => opcode::SendMsgZc::new(fd, pointer).ioprio(zc_flags).flags(flags));
        set_buffer_index(&mut entry, index);
        (entry, self.vectored(memory, Kind::SendZc { tells_usage }, Some(index), requested, lists))
    }
}

/// A message of these ranges to the peer of a connected socket.
fn message_of(ranges: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a message header is numbers and pointers: all zero is one without address and control
    // data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ranges.as_mut_ptr();
    message.msg_iovlen = ranges.len() as _;
    message
}

/// Where `buf_index` stands in a submission queue entry.
const BUFFER_INDEX_AT: usize = 40;

/// Sets the registered buffer of an entry whose opcode the io-uring crate gives none.
fn set_buffer_index(entry: &mut squeue::Entry, index: u16) {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let start = std::ptr::from_mut(entry).cast::<u8>();
    // SAFETY: within the 64 bytes of the entry, which is `struct io_uring_sqe` and nothing else
    // (the test below compares).
    let place = unsafe { start.add(BUFFER_INDEX_AT) };
    // SAFETY: two bytes of plain data inside the entry, which is borrowed mutably.
    unsafe { place.cast::<u16>().write_unaligned(index) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types;

    #[test]
    fn the_buffer_index_stands_where_the_crate_writes_it() {
        let built =
            opcode::SendZc::new(types::Fd(1), std::ptr::null(), 0).buf_index(Some(0xABCD)).build();
        let mut patched =
            opcode::SendZc::new(types::Fd(1), std::ptr::null(), 0).buf_index(Some(0)).build();
        set_buffer_index(&mut patched, 0xABCD);
        assert_eq!(bytes_of(&built), bytes_of(&patched));
    }

    fn bytes_of(entry: &squeue::Entry) -> [u8; 64] {
        // SAFETY: an entry is 64 bytes of plain data, all of them set.
        unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() }
    }
}
