//! Reads and writes: with the registered buffer if there is one, ordinary ones otherwise.

use std::ptr::NonNull;

use io_uring::{opcode, squeue};

use super::operation::{Descriptor, build};
use super::operation::{Iovecs, Kind, Operation};
use crate::buffer::{Buffer, IoMemory, Span};
use crate::system::TRANSFER_BYTES_MAX;
use crate::uring::kernel::Feature;
use crate::uring::registration::RegisteredArena;

/// An offset that the kernel refuses (`EINVAL`).
const NO_OFFSET: u64 = 1 << 63;

/// Returns the offset for an entry.
///
/// The kernel takes offsets as signed numbers, and -1 means the descriptor's own position. A
/// program that computed such an offset means neither that position nor the end of the file.
fn entry_offset(offset: u64) -> u64 {
    if offset > i64::MAX as u64 { NO_OFFSET } else { offset }
}

/// The number of ranges that one vectored operation can have (`IOV_MAX`).
pub(crate) const RANGES_MAX: usize = 1024;

impl RegisteredArena {
    /// Reads from `offset` of a file into the room behind the written bytes of the buffer. A new
    /// buffer is filled from its start.
    ///
    /// Returns the entry to push, with a `user_data` of zero until the caller sets one, and the
    /// operation, which owns the buffer. For sockets and pipes the offset is 0. An offset that no
    /// file has, beyond 2⁶³ − 1, completes with `EINVAL`. A buffer without room reads nothing and
    /// completes with 0, as at the end of a file. One entry moves 2 GiB − 4 KiB at most. See
    /// [io_uring_enter(2)](https://man7.org/linux/man-pages/man2/io_uring_enter.2.html),
    /// `IORING_OP_READ_FIXED`.
    ///
    /// An `O_DIRECT` file needs an aligned offset, length and address, which
    /// [`DirectAlignment::check_read`](crate::DirectAlignment::check_read) checks.
    ///
    /// The example of [`RegisteredArena`] shows it.
    pub fn read(
        &self,
        file: impl Into<Descriptor>,
        buffer: Buffer,
        offset: u64,
    ) -> (squeue::Entry, Operation) {
        self.read_at_most(file, buffer, offset, usize::MAX)
    }

    /// Reads `len` bytes at most. Otherwise as [`read`](Self::read).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # use uring_arena::FixedArena;
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// let zeros = std::fs::File::open("/dev/zero")?;
    /// let (entry, operation) = registered.read_at_most(&zeros, arena.allocate()?, 0, 100);
    /// # // SAFETY: the operation keeps the memory, the file stays open until the completion.
    /// # unsafe { ring.submission().push(&entry)? };
    /// # ring.submit_and_wait(1)?;
    /// # let cqe = ring.completion().next().unwrap();
    /// // SAFETY: the only completion of the only entry.
    /// let progress = unsafe { operation.complete(&cqe) };
    /// let Progress::Done { result, buffer, .. } = progress else { unreachable!() };
    /// assert_eq!((result?, buffer.len()), (100, 100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_at_most(
        &self,
        file: impl Into<Descriptor>,
        buffer: Buffer,
        offset: u64,
        len: usize,
    ) -> (squeue::Entry, Operation) {
        self.read_into(file.into(), buffer, offset, len)
    }

    /// Reads into the room of the memory. Memory without room reads nothing.
    pub(crate) fn read_into<M: IoMemory>(
        &self,
        file: Descriptor,
        mut memory: M,
        offset: u64,
        len: usize,
    ) -> (squeue::Entry, Operation<M>) {
        let (offset, len) = (entry_offset(offset), len.min(TRANSFER_BYTES_MAX));
        if memory.is_list() {
            return self.read_list(file, memory, offset, len);
        }
        let span = one_span(|each| memory.room(len, each)).at_most(len);
        let (start, len) = (span.start.as_ptr(), span.len as u32);
        let index = self.index_of(start, span.len);
        let entry = match index {
            Some(index) => {
                build!(file, fd => opcode::ReadFixed::new(fd, start, len, index).offset(offset))
            }
            None => build!(file, fd => opcode::Read::new(fd, start, len).offset(offset)),
        };
        (entry, Operation::new(memory, Kind::Read, index, len, None))
    }

    /// Writes the written bytes of the memory to `offset` of a file.
    ///
    /// `Bytes` that lie in the arena are written from their slot, without a copy and without
    /// pinning them again; others by an ordinary write. A pipe, or a full disk, may take a part:
    /// the result is the number of bytes. Otherwise as [`read`](Self::read).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use bytes::BufMut;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"hello");
    /// let bytes = buffer.freeze();
    /// let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    /// let (entry, operation) = registered.write(&null, bytes.slice(1..), 0);
    /// # // SAFETY: the operation keeps the memory, `null` stays open until the completion.
    /// # unsafe { ring.submission().push(&entry)? };
    /// # ring.submit_and_wait(1)?;
    /// # let cqe = ring.completion().next().unwrap();
    /// # // SAFETY: the only completion of the only entry.
    /// # let progress = unsafe { operation.complete(&cqe) };
    /// # let Progress::Done { result, .. } = progress else { unreachable!() };
    /// # assert_eq!(result?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write<M: IoMemory>(
        &self,
        file: impl Into<Descriptor>,
        memory: M,
        offset: u64,
    ) -> (squeue::Entry, Operation<M>) {
        self.write_from(file.into(), memory, offset, 0, usize::MAX)
    }

    /// Writes the written bytes of the memory behind the first `skip`, `len_max` of them at most.
    pub(crate) fn write_from<M: IoMemory>(
        &self,
        file: Descriptor,
        memory: M,
        offset: u64,
        skip: usize,
        len_max: usize,
    ) -> (squeue::Entry, Operation<M>) {
        if memory.is_list() {
            return self.write_list(file, memory, offset, skip, len_max);
        }
        let (offset, len_max) = (entry_offset(offset), len_max.min(TRANSFER_BYTES_MAX));
        let span = one_span(|each| memory.written(each)).after(skip).at_most(len_max);
        let (start, len) = (span.start.as_ptr().cast_const(), span.len as u32);
        let index = self.index_of(start, span.len);
        let entry = match index {
            Some(index) => {
                build!(file, fd => opcode::WriteFixed::new(fd, start, len, index).offset(offset))
            }
            None => build!(file, fd => opcode::Write::new(fd, start, len).offset(offset)),
        };
        (entry, Operation::new(memory, Kind::Write, index, len, None))
    }

    /// Reads from `offset` of a file into the room of several buffers, one after the other.
    ///
    /// The read uses a registered buffer (`IORING_OP_READV_FIXED`, Linux 6.15) if one entry of the
    /// table holds all of the buffers, as in the region mode. Otherwise it is an ordinary vectored
    /// read. Only the first 1024 buffers with room take part. Otherwise as [`read`](Self::read).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # use uring_arena::FixedArena;
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// let zeros = std::fs::File::open("/dev/zero")?;
    /// let buffers = vec![arena.allocate()?, arena.allocate()?];
    /// let (entry, operation) = registered.readv(&zeros, buffers, 0);
    /// # // SAFETY: the operation keeps the memory, the file stays open until the completion.
    /// # unsafe { ring.submission().push(&entry)? };
    /// # ring.submit_and_wait(1)?;
    /// # let cqe = ring.completion().next().unwrap();
    /// // SAFETY: the only completion of the only entry.
    /// let progress = unsafe { operation.complete(&cqe) };
    /// let Progress::Done { result, buffer: buffers, .. } = progress else { unreachable!() };
    /// assert_eq!((result?, buffers[1].len()), (8192, 4096));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readv(
        &self,
        file: impl Into<Descriptor>,
        buffers: Vec<Buffer>,
        offset: u64,
    ) -> (squeue::Entry, Operation<Vec<Buffer>>) {
        self.read_list(file.into(), buffers, entry_offset(offset), TRANSFER_BYTES_MAX)
    }

    fn read_list<M: IoMemory>(
        &self,
        file: Descriptor,
        mut memory: M,
        offset: u64,
        len: usize,
    ) -> (squeue::Entry, Operation<M>) {
        let mut spans = Spans::of_at_most(len);
        memory.room(len, &mut |span| spans.add(span));
        let (index, ranges, requested) =
            (self.common_index(&spans), spans.iovecs(), spans.len as u32);
        let (list, count) = (ranges.as_ptr(), ranges.len() as u32);
        let entry = match index {
            Some(index) => {
                build!(file, fd => opcode::ReadvFixed::new(fd, list, count, index).offset(offset))
            }
            None => build!(file, fd => opcode::Readv::new(fd, list, count).offset(offset)),
        };
        let iovecs = Some(Iovecs { ranges, message: None });
        (entry, Operation::new(memory, Kind::Read, index, requested, iovecs))
    }

    /// Writes the written bytes of several pieces of memory to `offset` of a file, one after the
    /// other.
    ///
    /// This is [`write`](Self::write) of a vector, by name. The write uses a registered buffer
    /// (`IORING_OP_WRITEV_FIXED`, Linux 6.15) if one entry of the table holds all of the pieces.
    /// Otherwise it is an ordinary vectored write. Only the first 1024 pieces that are not empty
    /// take part.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// use uring_arena::{Progress, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # use uring_arena::FixedArena;
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    /// let pieces = vec![bytes::Bytes::from_static(b"head"), bytes::Bytes::from_static(b"body")];
    /// let (entry, operation) = registered.writev(&null, pieces, 0);
    /// # // SAFETY: the operation keeps the memory, the file stays open until the completion.
    /// # unsafe { ring.submission().push(&entry)? };
    /// # ring.submit_and_wait(1)?;
    /// # let cqe = ring.completion().next().unwrap();
    /// // SAFETY: the only completion of the only entry.
    /// let progress = unsafe { operation.complete(&cqe) };
    /// let Progress::Done { result, .. } = progress else { unreachable!() };
    /// assert_eq!(result?, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn writev<M: IoMemory>(
        &self,
        file: impl Into<Descriptor>,
        pieces: Vec<M>,
        offset: u64,
    ) -> (squeue::Entry, Operation<Vec<M>>) {
        self.write(file, pieces, offset)
    }

    fn write_list<M: IoMemory>(
        &self,
        file: Descriptor,
        memory: M,
        offset: u64,
        skip: usize,
        len_max: usize,
    ) -> (squeue::Entry, Operation<M>) {
        let (spans, offset) = (Spans::written(&memory, skip, len_max), entry_offset(offset));
        let (index, ranges, requested) =
            (self.common_index(&spans), spans.iovecs(), spans.len as u32);
        let (list, count) = (ranges.as_ptr(), ranges.len() as u32);
        let entry = match index {
            Some(index) => {
                build!(file, fd => opcode::WritevFixed::new(fd, list, count, index).offset(offset))
            }
            None => build!(file, fd => opcode::Writev::new(fd, list, count).offset(offset)),
        };
        let iovecs = Some(Iovecs { ranges, message: None });
        (entry, Operation::new(memory, Kind::Write, index, requested, iovecs))
    }

    /// Returns the one entry of the table that holds every range, if the kernel can use one entry
    /// for all of them.
    pub(super) fn common_index(&self, spans: &Spans) -> Option<u16> {
        if !self.probe().has(Feature::VectoredFixed) {
            return None;
        }
        let mut indices =
            spans.ranges.iter().map(|span| self.index_of(span.start.as_ptr(), span.len));
        let first = indices.next()??;
        indices.all(|index| index == Some(first)).then_some(first)
    }
}

/// Returns the single range of memory that is no list.
#[inline]
pub(super) fn one_span(ranges: impl FnOnce(&mut dyn FnMut(Span))) -> Span {
    let mut only = Span { start: NonNull::dangling(), len: 0 };
    ranges(&mut |span: Span| only = span);
    only
}

/// The ranges of a vectored operation, without empty ones, which a registered buffer refuses.
pub(super) struct Spans {
    ranges: Vec<Span>,
    pub(super) len: usize,
    len_max: usize,
}

impl Spans {
    fn of_at_most(len_max: usize) -> Spans {
        Spans { ranges: Vec::new(), len: 0, len_max: len_max.min(TRANSFER_BYTES_MAX) }
    }

    /// Collects the written bytes behind the first `skip`, `len_max` of them at most.
    pub(super) fn written<M: IoMemory>(memory: &M, mut skip: usize, len_max: usize) -> Spans {
        let mut spans = Spans::of_at_most(len_max);
        memory.written(&mut |span| {
            let left = span.after(skip);
            skip -= span.len - left.len;
            spans.add(left);
        });
        spans
    }

    fn add(&mut self, mut span: Span) {
        span.len = span.len.min(self.len_max - self.len);
        if span.len > 0 && self.ranges.len() < RANGES_MAX {
            self.len += span.len;
            self.ranges.push(span);
        }
    }

    pub(super) fn iovecs(&self) -> Box<[libc::iovec]> {
        let iovec =
            |span: &Span| libc::iovec { iov_base: span.start.as_ptr().cast(), iov_len: span.len };
        self.ranges.iter().map(iovec).collect()
    }
}
