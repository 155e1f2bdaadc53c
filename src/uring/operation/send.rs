//! Sends: zero-copy from a registered buffer if that pays, ordinary ones otherwise.
//!
//! # Safety
//!
//! Unsafe here: one field of an entry that the io-uring crate gives no name, and an empty message
//! header.
#![allow(unsafe_code)]

use io_uring::{opcode, squeue};

use super::operation::{Descriptor, build};
use super::operation::{Iovecs, Kind, Operation};
use super::read_write::{Spans, one_span};
use crate::buffer::IoMemory;
use crate::system::SendOptions;
use crate::uring::kernel::{Feature, SEND_ZC_REPORT_USAGE};
use crate::uring::registration::RegisteredArena;

/// The flag `IORING_RECVSEND_FIXED_BUF`.
const RECVSEND_FIXED_BUF: u16 = 4;

/// Bytes that one send carries at most: they fit the kernel's `int` results with room to spare.
const SEND_BYTES_MAX: usize = 1 << 30;

impl SendOptions {
    /// Returns the flags of the call. A broken connection is an error of the operation, never a
    /// signal.
    fn flags(self) -> i32 {
        libc::MSG_NOSIGNAL | self.further_flags()
    }
}

impl RegisteredArena {
    /// Sends the written bytes of the memory on a connected socket.
    ///
    /// The send is zero-copy (`IORING_OP_SEND_ZC`, Linux 6.0) if the memory lies in the registered
    /// arena and has at least the threshold's bytes. Otherwise it is an ordinary send.
    ///
    /// A zero-copy send completes twice, even when it fails half-way. The first completion has its
    /// result and gives [`Progress::More`](crate::Progress::More). The second is the notification
    /// that the kernel is done with the memory. The end reports whether the kernel copied after all
    /// (Linux 6.2), as it does on loopback. See
    /// [io_uring_prep_send_zc(3)](https://man7.org/linux/man-pages/man3/io_uring_prep_send_zc.3.html).
    ///
    /// A vector of pieces goes out as one message, zero-copy if one entry of the table holds all of
    /// them (Linux 6.15).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use bytes::BufMut;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationPolicy, SendOptions};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
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
    /// # let progress = unsafe { operation.complete(&cqe) };
    /// # let Progress::Done { result, .. } = progress else { unreachable!() };
    /// # assert_eq!(result?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send<M: IoMemory>(
        &self,
        socket: impl Into<Descriptor>,
        memory: M,
        options: SendOptions,
    ) -> (squeue::Entry, Operation<M>) {
        self.send_from(socket.into(), memory, options, 0)
    }

    /// Sends the written bytes of the memory but for the first `skip`. A datagram is sent whole.
    pub(crate) fn send_from<M: IoMemory>(
        &self,
        socket: Descriptor,
        mut memory: M,
        options: SendOptions,
        skip: usize,
    ) -> (squeue::Entry, Operation<M>) {
        if memory.is_list() {
            return self.send_list(socket, memory, options, skip);
        }
        let span = one_span(|each| memory.written(each)).after(skip).at_most(SEND_BYTES_MAX);
        if let Some(header) = memory.message(span) {
            let index = match self.sends_zero_copy(span.len, options) {
                true => self.index_of(span.start.as_ptr(), span.len),
                false => None,
            };
            let header = header.as_ptr().cast_const().cast();
            return self.send_message(socket, memory, options, (header, span.len), index, None);
        }
        let (start, len) = (span.start.as_ptr().cast_const(), span.len as u32);
        let index = if options.asks_for_zero_copy(span.len) && self.probe().has(Feature::SendZc) {
            self.index_of(start, span.len)
        } else {
            None
        };
        let flags = options.flags();
        let Some(index) = index else {
            let entry = build!(socket, fd => opcode::Send::new(fd, start, len).flags(flags));
            return (entry, Operation::new(memory, Kind::Write, None, len, None));
        };
        let reports_usage = self.probe().has(Feature::SendZcUsage);
        let zc_flags = if reports_usage { SEND_ZC_REPORT_USAGE } else { 0 };
        let entry = build!(socket, fd => opcode::SendZc::new(fd, start, len)
            .buf_index(Some(index))
            .zc_flags(zc_flags)
            .flags(flags));
        (entry, Operation::new(memory, Kind::SendZc { reports_usage }, Some(index), len, None))
    }

    /// Returns whether a message of so many pieces or with an address is to be zero-copy.
    fn sends_zero_copy(&self, bytes: usize, options: SendOptions) -> bool {
        let probe = self.probe();
        options.asks_for_zero_copy(bytes)
            && probe.has(Feature::SendMsgZc)
            && probe.has(Feature::VectoredFixed)
    }

    /// Sends several pieces as one message, zero-copy if one entry of the table holds all of them
    /// (Linux 6.15).
    fn send_list<M: IoMemory>(
        &self,
        socket: Descriptor,
        memory: M,
        options: SendOptions,
        skip: usize,
    ) -> (squeue::Entry, Operation<M>) {
        let spans = Spans::written(&memory, skip, SEND_BYTES_MAX);
        let index = match self.sends_zero_copy(spans.len, options) {
            true => self.common_index(&spans),
            false => None,
        };
        let mut ranges = spans.iovecs();
        let message = Box::new(message_of(&mut ranges));
        let header = &raw const *message;
        let iovecs = Some(Iovecs { ranges, message: Some(message) });
        self.send_message(socket, memory, options, (header, spans.len), index, iovecs)
    }

    /// Sends the message of a header, which carries so many bytes.
    fn send_message<M: IoMemory>(
        &self,
        socket: Descriptor,
        memory: M,
        options: SendOptions,
        (header, bytes): (*const libc::msghdr, usize),
        index: Option<u16>,
        iovecs: Option<Iovecs>,
    ) -> (squeue::Entry, Operation<M>) {
        let (flags, requested) = (options.flags() as u32, bytes as u32);
        let Some(index) = index else {
            let entry = build!(socket, fd => opcode::SendMsg::new(fd, header).flags(flags));
            return (entry, Operation::new(memory, Kind::Write, None, requested, iovecs));
        };
        let reports_usage = self.probe().has(Feature::SendZcUsage);
        let zc_flags = RECVSEND_FIXED_BUF | if reports_usage { SEND_ZC_REPORT_USAGE } else { 0 };
        let mut entry =
            build!(socket, fd => opcode::SendMsgZc::new(fd, header).ioprio(zc_flags).flags(flags));
        set_buffer_index(&mut entry, index);
        let kind = Kind::SendZc { reports_usage };
        (entry, Operation::new(memory, kind, Some(index), requested, iovecs))
    }
}

/// Makes the header of a message of these ranges to the peer of a connected socket.
fn message_of(ranges: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a message header is numbers and pointers, and all zero is a header without address
    // and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ranges.as_mut_ptr();
    message.msg_iovlen = ranges.len() as _;
    message
}

/// The offset of `buf_index` in a submission queue entry, in bytes.
const BUFFER_INDEX_OFFSET: usize = 40;

/// Sets the registered buffer of an entry for whose opcode the io-uring crate has no setter.
fn set_buffer_index(entry: &mut squeue::Entry, index: u16) {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let start = std::ptr::from_mut(entry).cast::<u8>();
    // SAFETY: within the 64 bytes of the entry, which is `struct io_uring_sqe` and nothing else
    // (the test below compares).
    let field = unsafe { start.add(BUFFER_INDEX_OFFSET) };
    // SAFETY: two bytes of plain data inside the entry, which is borrowed mutably.
    unsafe { field.cast::<u16>().write_unaligned(index) };
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
