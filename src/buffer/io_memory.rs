//! The memory that the kernel may borrow: buffers, frozen bytes, and lists of them.
//!
//! # Safety
//!
//! Unsafe here: telling a buffer how much the kernel wrote, and counting a slot as lost by an
//! address in it. The borrowed bytes stay at their address while their owner is moved. They lie in
//! slots, or on the heap behind a `Bytes` or a spilled buffer.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use bytes::Bytes;

use super::arena_bytes::ArenaBytes;
use super::buffer::Buffer;
use crate::lease::{quarantine_at, slots_at};

/// A value whose memory the kernel may borrow: a [`Buffer`], [`ArenaBytes`], [`Bytes`], a
/// [`Payload`], or a vector of them.
///
/// An operation or a loan owns the memory until the kernel is done with it. So nothing else can
/// free or write the memory meanwhile. The trait is sealed.
///
/// ```
/// use bytes::Bytes;
/// use uring_arena::{ArenaBytes, Buffer, IoMemory};
///
/// fn can_be_borrowed<M: IoMemory>() {}
/// can_be_borrowed::<Buffer>();
/// can_be_borrowed::<Vec<ArenaBytes>>();
/// can_be_borrowed::<Bytes>();
/// ```
pub trait IoMemory: sealed::Borrowed {}

/// A range of memory, as an entry of the kernel's queue names it.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn of(bytes: &[u8]) -> Span {
        Span { start: NonNull::from(bytes).cast(), len: bytes.len() }
    }

    /// Returns the part behind the first `skip` bytes.
    pub(crate) fn after(self, skip: usize) -> Span {
        let skip = skip.min(self.len);
        // SAFETY: at most one past the span.
        Span { start: unsafe { self.start.add(skip) }, len: self.len - skip }
    }

    /// Returns the first `len_max` bytes, or all if there are fewer.
    pub(crate) fn at_most(self, len_max: usize) -> Span {
        Span { start: self.start, len: self.len.min(len_max) }
    }
}

pub(crate) mod sealed {
    use std::ptr::NonNull;

    use super::Span;

    /// The operations of a ring on borrowed memory.
    ///
    /// Implementors promise:
    /// 1. The spans stay valid, at their address, until the value is dropped, however often the
    ///    value is moved.
    /// 2. The spans of `written` are initialised, and nothing writes them.
    /// 3. The spans of `room` belong to the value alone.
    pub trait Borrowed: Sized + Send + Unpin + 'static {
        /// Returns whether the value may hand out more than one range.
        #[inline]
        fn is_list(&self) -> bool {
            false
        }

        /// Prepares the message header (`struct msghdr`) that carries `span` and an address, and
        /// returns where it lies. Memory without an address has none.
        ///
        /// The header stays valid, at its address, as long as the spans do.
        #[inline]
        fn message(&mut self, span: Span) -> Option<NonNull<u8>> {
            let _ = span;
            None
        }

        /// Hands each range of written bytes to `each`, in order.
        fn written(&self, each: &mut dyn FnMut(Span));

        /// Hands each range behind the written bytes to `each`, in order, `len_max` bytes at most.
        ///
        /// Records that the kernel may write there. Frozen bytes have no room.
        fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
            let _ = (len_max, each);
        }

        /// Counts the first `len` bytes of the room as written.
        ///
        /// # Safety
        ///
        /// The kernel wrote them, and is done.
        unsafe fn advance(&mut self, len: usize) {
            let _ = len;
        }

        /// Returns the number of bytes that an operation may use, from the first written one on. It
        /// is the capacity of a buffer, and the length of frozen bytes.
        fn extent(&self) -> usize {
            let mut bytes = 0;
            self.written(&mut |span| bytes += span.len);
            bytes
        }

        /// Leaks the memory, because the kernel may still use it, and counts its slot as lost.
        fn quarantine(self);
    }
}

use sealed::Borrowed;

impl IoMemory for Buffer {}

impl Borrowed for Buffer {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self));
    }

    fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
        let len = (self.capacity() - self.len()).min(len_max);
        if let Some(lease) = self.lease() {
            let before = self.as_ptr().addr() - lease.slot_start().addr().get();
            lease.record_written(before + self.len() + len);
        }
        let start = self.as_ptr().cast_mut().wrapping_add(self.len());
        if let Some(start) = NonNull::new(start) {
            each(Span { start, len });
        }
    }

    unsafe fn advance(&mut self, len: usize) {
        let len = (self.len() + len).min(self.capacity());
        // SAFETY: at most the capacity, and the kernel wrote the bytes behind the written ones (the
        // caller's promise).
        unsafe { self.set_len(len) };
    }

    fn extent(&self) -> usize {
        self.capacity()
    }

    fn quarantine(self) {
        Buffer::quarantine(self);
    }
}

impl IoMemory for ArenaBytes {}

impl Borrowed for ArenaBytes {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self));
    }

    fn quarantine(self) {
        ArenaBytes::quarantine(self);
    }
}

impl IoMemory for Bytes {}

impl Borrowed for Bytes {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self));
    }

    fn quarantine(self) {
        let (address, is_empty) = (self.as_ptr().addr(), self.is_empty());
        // So the share of the slot that these bytes own never ends.
        std::mem::forget(self);
        // An empty `Bytes` may point into a slot and own nothing.
        if !is_empty {
            // SAFETY: bytes that lie in an arena own a share of a slot, and these, just forgotten,
            // keep that share for ever.
            unsafe { quarantine_at(address) };
        }
    }
}

/// The memory of one operation, of any kind: for tables that hold operations of every kind.
///
/// ```
/// use bytes::Bytes;
/// use uring_arena::Payload;
///
/// let payload = Payload::from(Bytes::from_static(b"hello"));
/// assert_eq!(payload.as_ref(), b"hello");
/// assert!(payload.into_buffer().is_none());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Payload {
    /// A buffer.
    Buffer(Buffer),
    /// Frozen bytes of an arena.
    ArenaBytes(ArenaBytes),
    /// Any `Bytes`.
    Bytes(Bytes),
}

impl Payload {
    /// Returns the buffer, or `None` if the payload is frozen.
    ///
    /// ```
    /// use uring_arena::{FixedArena, Payload};
    ///
    /// let payload = Payload::from(FixedArena::new(1, 64)?.allocate()?);
    /// assert_eq!(payload.into_buffer().unwrap().capacity(), 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Payload::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Returns the address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.as_ref().as_ptr().addr()
    }

    /// Returns the number of slots that the payload keeps. Memory of no arena counts as one.
    pub(crate) fn slot_count(&self) -> usize {
        match self {
            Payload::Buffer(_) => 1,
            Payload::ArenaBytes(bytes) => bytes.slot_count().max(1),
            Payload::Bytes(bytes) if bytes.is_empty() => 1,
            // SAFETY: bytes that lie in an arena own a share of a slot.
            Payload::Bytes(bytes) => unsafe { slots_at(bytes.as_ptr().addr()) },
        }
    }

    /// Turns the written bytes into `Bytes`, without a copy.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use uring_arena::Payload;
    ///
    /// let payload = Payload::from(Bytes::from_static(b"hello"));
    /// assert_eq!(payload.into_bytes(), "hello");
    /// ```
    pub fn into_bytes(self) -> Bytes {
        match self {
            Payload::Buffer(buffer) => buffer.freeze(),
            Payload::ArenaBytes(bytes) => bytes.into(),
            Payload::Bytes(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        match self {
            Payload::Buffer(buffer) => buffer,
            Payload::ArenaBytes(bytes) => bytes,
            Payload::Bytes(bytes) => bytes,
        }
    }
}

impl From<Buffer> for Payload {
    fn from(buffer: Buffer) -> Payload {
        Payload::Buffer(buffer)
    }
}

impl From<ArenaBytes> for Payload {
    fn from(bytes: ArenaBytes) -> Payload {
        Payload::ArenaBytes(bytes)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload::Bytes(bytes)
    }
}

impl IoMemory for Payload {}

impl Borrowed for Payload {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self.as_ref()));
    }

    fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
        if let Payload::Buffer(buffer) = self {
            buffer.room(len_max, each);
        }
    }

    unsafe fn advance(&mut self, len: usize) {
        if let Payload::Buffer(buffer) = self {
            // SAFETY: the caller's promise, passed on.
            unsafe { buffer.advance(len) };
        }
    }

    fn extent(&self) -> usize {
        match self {
            Payload::Buffer(buffer) => buffer.capacity(),
            _ => self.as_ref().len(),
        }
    }

    fn quarantine(self) {
        match self {
            Payload::Buffer(buffer) => buffer.quarantine(),
            Payload::ArenaBytes(bytes) => bytes.quarantine(),
            Payload::Bytes(bytes) => bytes.quarantine(),
        }
    }
}

impl<M: IoMemory> IoMemory for Vec<M> {}

impl<M: IoMemory> Borrowed for Vec<M> {
    fn is_list(&self) -> bool {
        true
    }

    fn written(&self, each: &mut dyn FnMut(Span)) {
        for memory in self {
            memory.written(each);
        }
    }

    fn room(&mut self, mut len_max: usize, each: &mut dyn FnMut(Span)) {
        for memory in self {
            memory.room(len_max, &mut |span: Span| {
                len_max -= span.len;
                each(span);
            });
        }
    }

    unsafe fn advance(&mut self, mut len: usize) {
        for memory in self {
            let mut room = 0;
            memory.room(len, &mut |span| room += span.len);
            // SAFETY: the kernel fills the ranges in the order in which `room` gave them.
            unsafe { memory.advance(room) };
            len -= room;
        }
    }

    fn extent(&self) -> usize {
        self.iter().map(Borrowed::extent).sum()
    }

    fn quarantine(self) {
        self.into_iter().for_each(Borrowed::quarantine);
    }
}
