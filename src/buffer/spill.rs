//! Spilling: what outgrows its slot goes on on the heap, and the slot is free at once.
//!
//! # Safety
//!
//! Unsafe here: taking the vector of a spilled buffer out of its parts, and putting it back.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::Buffer;
use super::storage::Storage;
use crate::sync::Ordering;

/// Spills are told of at most this often per arena.
const TELL_EVERY_MS: u64 = 1000;

impl Buffer {
    /// Gives the buffer room for `additional` more bytes, on the heap.
    pub(super) fn grow_on_heap(&mut self, additional: usize) {
        if !self.is_spilled() {
            self.spill(additional);
            return;
        }
        let headroom = self.home.heap_headroom();
        let mut vector = self.take_vector();
        vector.reserve(additional);
        self.put_vector(vector, headroom);
    }

    fn spill(&mut self, additional: usize) {
        let headroom = self.headroom();
        let needed = headroom + self.len + additional;
        // Twice what is written already, so that growing is amortised from the first spill on.
        let mut vector = Vec::with_capacity(needed.max(2 * (headroom + self.cap)));
        // Head room is memory that may be given out later: the heap's must not be uninitialised.
        vector.resize(headroom, 0);
        vector.extend_from_slice(self);
        self.note_len();
        if let Some(lease) = self.lease() {
            let core = lease.core();
            // Relaxed: a counter.
            core.counters.spills.fetch_add(1, Ordering::Relaxed);
            tell_of_spill(core, self.cap, needed - headroom);
        }
        let old_home = std::mem::replace(&mut self.home, Storage::heap(headroom));
        self.put_vector(vector, headroom);
        drop(old_home);
    }

    /// The vector of a spilled buffer. The buffer has nothing until
    /// [`put_vector`](Self::put_vector).
    fn take_vector(&mut self) -> Vec<u8> {
        let headroom = self.home.heap_headroom();
        let (ptr, len, cap) = (self.ptr, self.len, self.cap);
        self.ptr = NonNull::dangling();
        self.len = 0;
        self.cap = 0;
        self.home = Storage::heap(0);
        if headroom + cap == 0 {
            return Vec::new();
        }
        // SAFETY: the vector starts `headroom` bytes before `ptr` (invariant 1 of `Buffer`).
        let start = unsafe { ptr.sub(headroom) };
        // SAFETY: `put_vector` took it apart; its first `headroom + len` bytes are initialised.
        unsafe { Vec::from_raw_parts(start.as_ptr(), headroom + len, headroom + cap) }
    }

    fn put_vector(&mut self, vector: Vec<u8>, headroom: usize) {
        let mut vector = ManuallyDrop::new(vector);
        let start = NonNull::new(vector.as_mut_ptr()).expect("a vector's pointer is never null");
        // SAFETY: the vector holds at least the head room.
        self.ptr = unsafe { start.add(headroom) };
        self.len = vector.len() - headroom;
        self.cap = vector.capacity() - headroom;
        self.home = Storage::heap(headroom);
    }

    /// The bytes of a spilled buffer as a vector, and how many of its first bytes are head room.
    pub(super) fn into_vector(mut self) -> (Vec<u8>, usize) {
        let headroom = self.home.heap_headroom();
        (self.take_vector(), headroom)
    }

    /// Frees the vector of a spilled buffer whose home, with so much head room, was taken out.
    #[inline(never)]
    pub(super) fn drop_heap(&mut self, headroom: usize) {
        self.home = Storage::heap(headroom);
        drop(self.take_vector());
    }
}

/// Tells of a spill, at most once a second per arena: a loaded program spills without end.
fn tell_of_spill(core: &crate::lease::Core, slot_bytes: usize, needed_bytes: usize) {
    let now_ms = crate::sync::process_clock_ms();
    // Relaxed: it only limits how often we tell.
    let told_ms = core.counters.spill_warned_ms.load(Ordering::Relaxed);
    if told_ms != 0 && now_ms < told_ms + TELL_EVERY_MS {
        return;
    }
    let ours = core.counters.spill_warned_ms.compare_exchange(
        told_ms,
        now_ms,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    if ours.is_ok() {
        let spills = core.counters.spills.load(Ordering::Relaxed);
        tracing::warn!(
            slot_bytes,
            needed_bytes,
            spills,
            "a buffer outgrew its slot and went on on the heap; larger slots avoid the copy (told at most once a second)"
        );
    }
}
