//! Writing into a buffer: `BufMut`, `io::Write`, and the spill to the heap.
//!
//! A buffer that outgrows its slot moves to the heap if its arena allows that, and its slot is free
//! at once. The methods of `BufMut` are inlined, because callers have them in loops.
//!
//! # Safety
//!
//! Unsafe here: the `BufMut` contract, copies into room that was checked, and the vector of a
//! spilled buffer. The vector is taken apart into the buffer's fields and put together again.
#![allow(unsafe_code)]

use std::any::Any;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

use bytes::BufMut;
use bytes::buf::UninitSlice;

use super::buffer::{Buffer, BufferFullError};
use super::storage::Storage;
use crate::lease::{Core, Lease, SPILL};
use crate::sync::Ordering;

/// The room that a spilled buffer gets when it is asked for some, in bytes at least.
const GROW_BYTES: usize = 64;

impl Buffer {
    /// Appends all of `data`, or nothing.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] with the room left if `data` does not fit. A buffer that may spill takes
    /// anything that the heap has memory for.
    ///
    /// ```
    /// let mut buffer = uring_arena::FixedArena::new(1, 4)?.allocate()?;
    /// assert!(buffer.try_put_slice(b"abc").is_ok());
    /// let error = buffer.try_put_slice(b"de").unwrap_err();
    /// assert_eq!((error.remaining, error.requested), (1, 2));
    /// assert_eq!(&buffer[..], b"abc");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn try_put_slice(&mut self, data: &[u8]) -> Result<(), BufferFullError> {
        if data.len() <= self.cap - self.len {
            self.put_fitting(data);
            return Ok(());
        }
        if !self.grow(data.len()).finish() {
            let remaining = self.cap - self.len;
            return Err(BufferFullError { remaining, requested: data.len() });
        }
        self.put_fitting(data);
        Ok(())
    }

    /// Returns true if `len` more bytes can be written without a panic.
    ///
    /// A buffer that may spill has room for [`isize::MAX`] bytes, head room included. The heap may
    /// have no memory for so many: then writing panics, and the buffer stays as it was.
    ///
    /// ```
    /// let buffer = uring_arena::FixedArena::new(1, 4)?.allocate()?;
    /// assert!(buffer.will_fit(4) && !buffer.will_fit(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn will_fit(&self, len: usize) -> bool {
        len <= self.remaining_mut()
    }

    /// Appends `data`. The caller has checked that it fits.
    #[inline(always)]
    fn put_fitting(&mut self, data: &[u8]) {
        debug_assert!(data.len() <= self.cap - self.len);
        // SAFETY: `len + data.len() <= cap`: inside the buffer's own memory.
        let spare = unsafe { self.ptr.add(self.len) };
        // SAFETY: room for `data.len()` bytes, and a shared slice cannot lie in memory that is this
        // buffer's alone.
        unsafe { spare.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.len += data.len();
    }

    /// Makes room for `additional` more bytes on the heap, or panics as `BufMut` demands. The bytes
    /// written so far stay in the buffer in any case.
    ///
    // The cold part takes the buffer by value: its address is never taken then, so a loop of puts
    // keeps the buffer in registers.
    #[inline(always)]
    fn make_room(&mut self, additional: usize) {
        let full = std::mem::replace(self, Buffer::dangling());
        let (buffer, failure) = full.grown(additional);
        std::mem::forget(std::mem::replace(self, buffer));
        if let Some(failure) = failure {
            go_on(failure);
        }
    }

    /// Returns the buffer with room for `additional` more bytes. Returns it as it was, with the
    /// panic that tells why, if there is none.
    #[cold]
    #[inline(never)]
    fn grown(mut self, additional: usize) -> (Buffer, Option<Failure>) {
        let grow = || self.grow_or_panic(additional);
        let panic = catch_unwind(AssertUnwindSafe(grow)).err().map(Box::new);
        (self, panic)
    }

    /// Gives the buffer room for `additional` more bytes on the heap. The bytes written so far stay
    /// in the buffer, also if this panics.
    #[inline(never)]
    fn grow_or_panic(&mut self, additional: usize) {
        if self.grow(additional).finish() {
            return;
        }
        let (len, room) = (self.len, self.cap - self.len);
        assert!(
            !self.may_spill(),
            "the heap has no memory for {additional} bytes behind the {len} bytes written; write \
             less, or use larger slots"
        );
        panic!(
            "buffer full: {additional} bytes to write, {room} bytes remaining; \
             check with will_fit, or build the arena with auto_spill"
        );
    }

    fn may_spill(&self) -> bool {
        match self.lease() {
            Some(lease) => lease.header().has(SPILL),
            None => true,
        }
    }

    /// Gives the buffer room for `additional` more bytes on the heap, if it may spill and there is
    /// memory. Never panics, and runs no foreign code.
    fn grow(&mut self, additional: usize) -> Growth {
        if !self.may_spill() || additional > self.remaining_mut() {
            return Growth::Refused;
        }
        if !self.is_spilled() {
            return self.spill(additional);
        }
        let headroom = self.storage.heap_headroom();
        let mut vector = self.take_vector();
        let reserved = vector.try_reserve(additional);
        self.put_vector(vector, headroom);
        if reserved.is_ok() { Growth::Done } else { Growth::Refused }
    }

    /// Moves the bytes from the slot to the heap.
    fn spill(&mut self, additional: usize) -> Growth {
        let (headroom, slot_bytes) = (self.headroom(), self.cap);
        // At most `isize::MAX`, because the rest fits.
        let needed = headroom + self.len + additional;
        // At least twice the slot, so that growing is amortised from the first spill on.
        let amortised = needed.max(2 * (headroom + slot_bytes));
        let mut vector = Vec::new();
        if vector.try_reserve_exact(amortised).is_err() && vector.try_reserve_exact(needed).is_err()
        {
            return Growth::Refused;
        }
        // `prepend` turns head room into written bytes: so these bytes must be initialised.
        vector.resize(headroom, 0);
        vector.extend_from_slice(self);
        self.record_len();
        let slot = std::mem::replace(&mut self.storage, Storage::heap(headroom));
        self.put_vector(vector, headroom);
        match slot.into_lease() {
            Ok(lease) => Growth::Spilled { lease, slot_bytes, needed_bytes: needed - headroom },
            Err(_) => unreachable!("the caller has checked"),
        }
    }

    /// Takes the vector out of a spilled buffer, which has no memory until `put_vector`.
    fn take_vector(&mut self) -> Vec<u8> {
        let headroom = self.storage.heap_headroom();
        let (ptr, len, cap) = (self.ptr, self.len, self.cap);
        self.ptr = NonNull::dangling();
        self.len = 0;
        self.cap = 0;
        self.storage = Storage::heap(0);
        if headroom + cap == 0 {
            return Vec::new();
        }
        // SAFETY: the vector starts `headroom` bytes before `ptr` (invariant 1 of `Buffer`).
        let start = unsafe { ptr.sub(headroom) };
        // SAFETY: `put_vector` took it apart; its first `headroom + len` bytes are initialised.
        unsafe { Vec::from_raw_parts(start.as_ptr(), headroom + len, headroom + cap) }
    }

    /// Takes a vector apart into the fields of the buffer.
    fn put_vector(&mut self, vector: Vec<u8>, headroom: usize) {
        let mut vector = ManuallyDrop::new(vector);
        let start = NonNull::new(vector.as_mut_ptr()).expect("a vector's pointer is never null");
        // SAFETY: the vector holds at least the head room.
        self.ptr = unsafe { start.add(headroom) };
        self.len = vector.len() - headroom;
        self.cap = vector.capacity() - headroom;
        self.storage = Storage::heap(headroom);
    }

    /// Returns the vector of a spilled buffer, and the number of its first bytes that are head
    /// room.
    pub(super) fn into_vector(mut self) -> (Vec<u8>, usize) {
        let headroom = self.storage.heap_headroom();
        (self.take_vector(), headroom)
    }

    /// Frees the vector of a spilled buffer whose storage, with `headroom`, was taken out.
    #[inline(never)]
    pub(super) fn drop_heap(&mut self, headroom: usize) {
        self.storage = Storage::heap(headroom);
        drop(self.take_vector());
    }
}

/// A panic that is kept until the buffer is in order again. Boxed twice, so that it is one word.
type Failure = Box<Box<dyn Any + Send>>;

#[cold]
#[inline(never)]
#[allow(clippy::boxed_local)] // one word in the caller
fn go_on(failure: Failure) -> ! {
    resume_unwind(*failure)
}

/// The outcome of giving a buffer more room.
#[must_use]
enum Growth {
    /// There is room.
    Done,
    /// There is room on the heap now. The slot is freed when the buffer is in order again, because
    /// that may run foreign code: wakers, and a subscriber of the log.
    Spilled { lease: Lease, slot_bytes: usize, needed_bytes: usize },
    /// There is no room, and the buffer is as it was.
    Refused,
}

impl Growth {
    /// Frees the slot of a buffer that spilled. Returns `true` if there is room.
    #[cold]
    fn finish(self) -> bool {
        match self {
            Growth::Done => true,
            Growth::Refused => false,
            Growth::Spilled { lease, slot_bytes, needed_bytes } => {
                let core = lease.core();
                // Relaxed: a counter.
                core.counters.spills.fetch_add(1, Ordering::Relaxed);
                warn_of_spill(core, slot_bytes, needed_bytes);
                drop(lease);
                true
            }
        }
    }
}

// SAFETY: `chunk_mut` gives room of the buffer's own behind the written bytes, and `advance_mut`
// checks that it moves no further than that room.
unsafe impl BufMut for Buffer {
    #[inline]
    fn remaining_mut(&self) -> usize {
        if !self.may_spill() {
            return self.cap - self.len;
        }
        // A vector holds at most `isize::MAX` bytes, the head room among them.
        isize::MAX as usize - self.headroom() - self.len
    }

    #[inline]
    unsafe fn advance_mut(&mut self, count: usize) {
        let room = self.cap - self.len;
        assert!(count <= room, "cannot advance by {count} bytes, {room} bytes of room");
        self.len += count;
    }

    #[inline]
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.len == self.cap && self.may_spill() {
            self.grow_or_panic(GROW_BYTES);
        }
        UninitSlice::uninit(self.spare_capacity_mut())
    }

    #[inline]
    fn put_slice(&mut self, data: &[u8]) {
        if data.len() > self.cap - self.len {
            self.make_room(data.len());
        }
        self.put_fitting(data);
    }

    #[inline]
    fn put_bytes(&mut self, value: u8, count: usize) {
        if count > self.cap - self.len {
            self.make_room(count);
        }
        // SAFETY: `len + count <= cap`: inside the buffer's own memory.
        let spare = unsafe { self.ptr.add(self.len) };
        // SAFETY: room for `count` bytes of the buffer's own.
        unsafe { spare.as_ptr().write_bytes(value, count) };
        self.len += count;
    }

    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    #[inline]
    fn put_i8(&mut self, value: i8) {
        self.put_slice(&value.to_ne_bytes());
    }
}

/// Appends bytes as [`Buffer::try_put_slice`] does.
///
/// ```
/// use std::io::Write;
/// use uring_arena::FixedArena;
///
/// let arena = FixedArena::new(1, 8)?;
/// let mut buffer = arena.allocate()?;
/// write!(buffer, "{:05}", 42)?;
/// assert_eq!(&buffer[..], b"00042");
/// // `write` takes the bytes that fit, `write_all` all or nothing.
/// assert_eq!(buffer.write(b"abcdef")?, 3);
/// assert!(buffer.write_all(b"g").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl io::Write for Buffer {
    /// Appends the bytes that fit, and returns their number: 0 if the buffer is full.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(self.remaining_mut());
        self.try_put_slice(&data[..len])?;
        Ok(len)
    }

    /// Appends all of `data`, or nothing. The error is a [`BufferFullError`].
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Ok(self.try_put_slice(data)?)
    }

    /// Does nothing: the bytes are in memory.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Warns of a spill, at most once a second per arena: a loaded program spills without end.
fn warn_of_spill(core: &Core, slot_bytes: usize, needed_bytes: usize) {
    if core.counters.spill_events.is_due() {
        let spills = core.counters.spills.load(Ordering::Relaxed);
        tracing::warn!(
            slot_bytes,
            needed_bytes,
            spills,
            "a buffer outgrew its slot and went on on the heap; larger slots avoid the copy (at most one warning a second)"
        );
    }
}
