//! Writing: `BufMut`, inlined where it is called in a loop.
//!
//! # Safety
//!
//! Unsafe here: the `BufMut` contract, and one copy into room that was checked.
#![allow(unsafe_code)]

use bytes::BufMut;
use bytes::buf::UninitSlice;

use super::Buffer;
use crate::error::BufferFullError;

impl Buffer {
    /// Appends all of `data`, or nothing.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] with the room left if `data` does not fit. A buffer that may spill takes
    /// anything.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(4).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
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
        let remaining = self.remaining_mut();
        if data.len() > remaining {
            return Err(BufferFullError { remaining, requested: data.len() });
        }
        self.put_slice(data);
        Ok(())
    }

    /// Whether `len` more bytes can be written without a panic.
    #[inline]
    pub fn will_fit(&self, len: usize) -> bool {
        len <= self.remaining_mut()
    }

    /// Appends `data`, which the caller has checked to fit.
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

    /// Makes room for `additional` more bytes on the heap, or panics as `BufMut` demands.
    ///
    /// The cold part takes the buffer by value: a loop of puts then keeps it in registers, since
    /// nobody ever sees its address.
    #[inline(always)]
    fn make_room(&mut self, additional: usize) {
        let full = std::mem::replace(self, Buffer::nowhere());
        let (buffer, grown) = full.grown(additional);
        std::mem::forget(std::mem::replace(self, buffer));
        if !grown {
            refuse(additional, self.cap - self.len);
        }
    }

    /// The buffer with room for `additional` more bytes on the heap, and true; as it was, and
    /// false, if it may not spill.
    #[cold]
    #[inline(never)]
    fn grown(mut self, additional: usize) -> (Buffer, bool) {
        let grown = additional <= self.remaining_mut();
        if grown {
            self.grow_on_heap(additional);
        }
        (self, grown)
    }

    fn may_spill(&self) -> bool {
        match self.lease() {
            Some(lease) => lease.header().has(crate::lease::SPILL),
            None => true,
        }
    }
}

#[cold]
#[inline(never)]
fn refuse(additional: usize, remaining: usize) -> ! {
    panic!(
        "buffer full: {additional} bytes to write, {remaining} bytes remaining; \
         check with will_fit, or build the arena with auto_spill"
    )
}

// SAFETY: `chunk_mut` gives room of the buffer's own behind the written bytes, and `advance_mut`
// checks that it moves no further than that room.
unsafe impl BufMut for Buffer {
    #[inline]
    fn remaining_mut(&self) -> usize {
        if self.may_spill() { isize::MAX as usize - self.len } else { self.cap - self.len }
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
            self.grow_on_heap(64);
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
