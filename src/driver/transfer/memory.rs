//! The memory of one transfer, of any kind.
//!
//! # Safety
//!
//! Unsafe here: telling memory how much the kernel wrote, on the caller's word.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::buffer::{Borrowed, Buffer, IoMemory, Payload, Span};
use crate::sync::contain;
use crate::uring::Addressed;

/// The memory of one transfer.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A sync and the like has none.
    Nothing,
    Buffer(Buffer),
    Buffers(Vec<Buffer>),
    Payload(Payload),
    Pieces(Vec<Payload>),
    /// A datagram, with the address that it goes to.
    Addressed(Addressed<Payload>),
}

impl Memory {
    /// Returns the address by which the arena of the memory is found.
    pub(super) fn address(&self) -> usize {
        match self {
            Memory::Nothing => 0,
            Memory::Buffer(buffer) => buffer.as_ptr().addr(),
            Memory::Buffers(buffers) => buffers.first().map_or(0, |first| first.as_ptr().addr()),
            Memory::Payload(payload) => payload.address(),
            Memory::Pieces(pieces) => pieces.first().map_or(0, Payload::address),
            Memory::Addressed(addressed) => addressed.memory().address(),
        }
    }

    /// Collects the addresses of its pieces, by which their slots are found.
    pub(super) fn addresses(&self) -> Vec<usize> {
        match self {
            Memory::Nothing => Vec::new(),
            Memory::Buffers(buffers) => buffers.iter().map(|one| one.as_ptr().addr()).collect(),
            Memory::Pieces(pieces) => pieces.iter().map(Payload::address).collect(),
            memory => vec![memory.address()],
        }
    }

    /// Returns the number of written bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Memory::Payload(payload) => payload.as_ref().len(),
            Memory::Nothing => 0,
            memory => {
                let mut bytes = 0;
                memory.written(&mut |span: Span| bytes += span.len);
                bytes
            }
        }
    }

    /// Returns whether a read has room left.
    pub(super) fn has_room(&self) -> bool {
        let has_room = |buffer: &Buffer| buffer.len() < buffer.capacity();
        match self {
            Memory::Buffer(buffer) => has_room(buffer),
            Memory::Buffers(buffers) => buffers.iter().any(has_room),
            _ => false,
        }
    }
}

/// Calls the method of the memory in its variant.
macro_rules! each {
    ($memory:expr, $inner:ident => $call:expr, $nothing:expr) => {
        match $memory {
            Memory::Nothing => $nothing,
            Memory::Buffer($inner) => $call,
            Memory::Buffers($inner) => $call,
            Memory::Payload($inner) => $call,
            Memory::Pieces($inner) => $call,
            Memory::Addressed($inner) => $call,
        }
    };
}

impl IoMemory for Memory {}

impl Borrowed for Memory {
    fn is_list(&self) -> bool {
        matches!(self, Memory::Buffers(_) | Memory::Pieces(_))
    }

    fn message(&mut self, span: Span) -> Option<NonNull<u8>> {
        match self {
            Memory::Addressed(addressed) => addressed.message(span),
            _ => None,
        }
    }

    fn written(&self, each: &mut dyn FnMut(Span)) {
        each!(self, memory => memory.written(each), ());
    }

    fn room(&mut self, len_max: usize, each: &mut dyn FnMut(Span)) {
        each!(self, memory => memory.room(len_max, each), ());
    }

    unsafe fn advance(&mut self, len: usize) {
        // SAFETY: the caller's promise, passed on.
        each!(self, memory => unsafe { memory.advance(len) }, ());
    }

    fn extent(&self) -> usize {
        each!(self, memory => memory.extent(), 0)
    }

    fn quarantine(self) {
        each!(self, memory => memory.quarantine(), ());
    }
}

/// Drops memory of the program's. Returns `false` if its owner panicked, or the waker of a claim
/// that got its slot: that harms nothing of ours.
pub(crate) fn drop_memory<M>(memory: M) -> bool {
    contain("the drop of a payload", || drop(memory))
}
