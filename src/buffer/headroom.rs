//! Room before the payload, for a header that is known last.
//!
//! # Safety
//!
//! Unsafe here: moving the start of a buffer within its own memory, and one copy into it.
#![allow(unsafe_code)]

use super::Buffer;
use crate::error::BufferFullError;

impl Buffer {
    /// Sets the first `bytes` bytes of an empty buffer aside for [`prepend`](Self::prepend).
    ///
    /// Adds to head room set aside before. The capacity shrinks by as much.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] if the buffer is not that large, or if something has been written
    /// already.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut frame = arena.allocate()?;
    /// frame.reserve_headroom(4)?;
    /// frame.put_slice(b"payload");
    /// frame.prepend(&(frame.len() as u32).to_be_bytes())?;
    /// assert_eq!(&frame[..], b"\0\0\0\x07payload");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve_headroom(&mut self, bytes: usize) -> Result<(), BufferFullError> {
        let remaining = if self.is_empty() && !self.is_spilled() { self.cap } else { 0 };
        if bytes > remaining {
            return Err(BufferFullError { remaining, requested: bytes });
        }
        // SAFETY: `bytes <= cap`: the start stays within the buffer's own memory.
        self.ptr = unsafe { self.ptr.add(bytes) };
        self.cap -= bytes;
        Ok(())
    }

    /// Bytes of head room left before the payload.
    pub fn headroom(&self) -> usize {
        match self.lease() {
            Some(lease) => self.ptr.addr().get() - lease.slot_start().addr().get(),
            None => self.home.heap_headroom(),
        }
    }

    /// Puts `data` right before the written bytes, in the head room.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] if less than `data.len()` bytes of head room are left; nothing is
    /// changed then.
    pub fn prepend(&mut self, data: &[u8]) -> Result<(), BufferFullError> {
        let headroom = self.headroom();
        if data.len() > headroom {
            return Err(BufferFullError { remaining: headroom, requested: data.len() });
        }
        // SAFETY: there is head room of the buffer's own memory before its start.
        let start = unsafe { self.ptr.sub(data.len()) };
        // SAFETY: room for `data.len()` bytes, and a shared slice cannot lie in memory that is this
        // buffer's alone.
        unsafe { start.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.ptr = start;
        self.len += data.len();
        self.cap += data.len();
        if self.is_spilled() {
            self.home = super::storage::Storage::heap(headroom - data.len());
        }
        Ok(())
    }
}
