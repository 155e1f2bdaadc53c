//! The memory that an operation takes along: buffers, frozen bytes, and lists of them.
//!
//! # Safety
//!
//! Unsafe here: telling a buffer how much the kernel wrote. What is borrowed here stays where it is
//! while its owner is moved: slots, and the heap behind a `Bytes` or a spilled buffer.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use bytes::Bytes;

use crate::buffer::{ArenaBytes, Buffer};
use crate::lease::ArenaRef;

/// Memory that an operation can take along: [`Buffer`], [`ArenaBytes`], [`Bytes`], [`Payload`], and
/// vectors of them.
///
/// The operation owns it until its last completion, so nothing can free it or write it meanwhile.
pub trait Memory: held::Held {}

/// A range of memory, as the kernel is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
}

impl Span {
    fn of(bytes: &[u8]) -> Span {
        Span { start: NonNull::from(bytes).cast(), len: bytes.len() }
    }

    /// What lies behind the first `skip` bytes.
    pub(super) fn after(self, skip: usize) -> Span {
        let skip = skip.min(self.len);
        // SAFETY: at most one past the span.
        Span { start: unsafe { self.start.add(skip) }, len: self.len - skip }
    }
}

pub(super) mod held {
    use super::{ArenaRef, Span};

    /// What an operation does with its memory.
    ///
    /// Implementors promise: the spans stay valid, at their place, until the value is dropped,
    /// however often it is moved; those of `written` are initialised and change for nobody; those
    /// of `room` are the value's alone.
    pub trait Held: Sized + Send + 'static {
        /// Whether it may hand out more than one range.
        const IS_LIST: bool = false;

        /// Hands each range of written bytes to `each`, in order.
        fn written(&self, each: &mut dyn FnMut(Span));

        /// Hands each range behind the written bytes to `each`, in order, and notes that the kernel
        /// may write there.
        fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span));

        /// Counts the first `len` bytes of the room as written.
        ///
        /// # Safety
        ///
        /// The kernel wrote them, and is done.
        unsafe fn note_read(&mut self, len: usize);

        /// Never frees the memory: the kernel may still use it. `arena_ref` is of the arena that the
        /// operation was made for.
        fn quarantine(self, arena_ref: ArenaRef);
    }
}

use held::Held;

impl Memory for Buffer {}

impl Held for Buffer {
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

    unsafe fn note_read(&mut self, len: usize) {
        let len = (self.len() + len).min(self.capacity());
        // SAFETY: at most the capacity; the kernel wrote what was not written before (the caller's
        // promise).
        unsafe { self.set_len(len) };
    }

    fn quarantine(self, _: ArenaRef) {
        Buffer::quarantine(self);
    }
}

impl Memory for ArenaBytes {}

impl Held for ArenaBytes {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self));
    }

    fn room(&mut self, _: usize, _: &mut dyn FnMut(Span)) {}

    unsafe fn note_read(&mut self, _: usize) {}

    fn quarantine(self, _: ArenaRef) {
        ArenaBytes::quarantine(self);
    }
}

impl Memory for Bytes {}

impl Held for Bytes {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self));
    }

    fn room(&mut self, _: usize, _: &mut dyn FnMut(Span)) {}

    unsafe fn note_read(&mut self, _: usize) {}

    fn quarantine(self, arena_ref: ArenaRef) {
        let (address, is_empty) = (self.as_ptr().addr(), self.is_empty());
        // Its share of the slot is never given up.
        std::mem::forget(self);
        // An empty `Bytes` may point into a slot and own nothing.
        if arena_ref.covers(address) && !is_empty {
            // SAFETY: bytes that lie in the arena own a share of a slot, and these, just forgotten,
            // keep it for ever.
            unsafe { arena_ref.mark_quarantined(address) };
        }
    }
}

/// Any memory that a single operation can take along, for tables that hold operations of every
/// kind.
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
    /// The buffer, if it is one.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Payload::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Where the memory begins.
    pub(crate) fn address(&self) -> usize {
        match self {
            Payload::Buffer(buffer) => buffer.as_ptr().addr(),
            _ => self.as_ref().as_ptr().addr(),
        }
    }

    /// The written bytes as `Bytes`, without a copy.
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

impl Memory for Payload {}

impl Held for Payload {
    fn written(&self, each: &mut dyn FnMut(Span)) {
        each(Span::of(self.as_ref()));
    }

    fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
        if let Payload::Buffer(buffer) = self {
            buffer.room(len_max, each);
        }
    }

    unsafe fn note_read(&mut self, len: usize) {
        if let Payload::Buffer(buffer) = self {
            // SAFETY: the caller's promise, passed on.
            unsafe { buffer.note_read(len) };
        }
    }

    fn quarantine(self, arena_ref: ArenaRef) {
        match self {
            Payload::Buffer(buffer) => buffer.quarantine(),
            Payload::ArenaBytes(bytes) => bytes.quarantine(),
            Payload::Bytes(bytes) => bytes.quarantine(arena_ref),
        }
    }
}

impl<M: Memory> Memory for Vec<M> {}

impl<M: Memory> Held for Vec<M> {
    const IS_LIST: bool = true;

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

    unsafe fn note_read(&mut self, mut len: usize) {
        for memory in self {
            let mut room = 0;
            memory.room(len, &mut |span| room += span.len);
            // SAFETY: the kernel fills the ranges in the order in which `room` gave them.
            unsafe { memory.note_read(room) };
            len -= room;
        }
    }

    fn quarantine(self, arena_ref: ArenaRef) {
        for memory in self {
            memory.quarantine(arena_ref);
        }
    }
}
