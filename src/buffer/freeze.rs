//! Freezing: the written bytes become readable by many, without a copy.

use std::ops::RangeBounds;

use bytes::Bytes;

use super::arena_bytes::{ArenaBytes, bounds};
use super::buffer::Buffer;
use super::storage::SharedStorage;

impl Buffer {
    /// Turns the written bytes into [`Bytes`] without copying them.
    ///
    /// The slot is free again when the last clone or slice of the result is dropped, on whatever
    /// thread. **A slice of one byte keeps its whole slot**: copy it out
    /// ([`BytesExt::into_owned`](crate::BytesExt)) to keep little for long.
    ///
    /// The call makes one heap allocation, inside [`Bytes::from_owner`]. A spilled buffer gives its
    /// heap memory. An empty buffer frees its slot at once.
    ///
    /// There is no way back from `Bytes` into a `Buffer`. `Bytes::is_unique` is always false for
    /// `Bytes` with an owner, so nothing proves that they have no other reader.
    /// [`freeze_in_place`](Self::freeze_in_place) gives [`ArenaBytes`], which do have a way back
    /// ([`try_into_buffer`](ArenaBytes::try_into_buffer)).
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let arena = uring_arena::FixedArena::new(1, 64)?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"hello world");
    /// let bytes = buffer.freeze();
    /// let world = bytes.slice(6..);
    /// drop(bytes);
    /// assert!(arena.allocate().is_err());
    /// std::thread::spawn(move || drop(world)).join().unwrap();
    /// assert!(arena.allocate().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Always, as `FixedArena::allocate`: a buffer that goes through memory costs more than the
    // freeze.
    #[inline(always)]
    pub fn freeze(self) -> Bytes {
        if self.is_spilled() {
            return self.freeze_spilled();
        }
        self.freeze_in_place().into()
    }

    #[cold]
    fn freeze_spilled(self) -> Bytes {
        let (vector, headroom) = self.into_vector();
        let mut bytes = Bytes::from(vector);
        bytes::Buf::advance(&mut bytes, headroom);
        bytes
    }

    /// Turns the written bytes into [`ArenaBytes`]: like `Bytes`, but without any heap allocation.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// buffer.put_slice(b"hello");
    /// let bytes = buffer.freeze_in_place();
    /// assert_eq!(bytes, b"hello"[..]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as `freeze`
    pub fn freeze_in_place(self) -> ArenaBytes {
        self.record_len();
        if self.is_spilled() {
            return self.freeze_spilled_in_place();
        }
        let (ptr, len, _, storage) = self.into_parts();
        match storage.into_lease() {
            Ok(lease) => {
                lease.record_freeze();
                ArenaBytes::new(ptr, len, SharedStorage::slot(lease))
            }
            Err(_) => unreachable!("checked above"),
        }
    }

    #[cold]
    fn freeze_spilled_in_place(self) -> ArenaBytes {
        let (vector, headroom) = self.into_vector();
        ArenaBytes::from_vector(vector, headroom)
    }

    /// Turns a part of the written bytes into [`Bytes`], without a copy. The rest is dropped.
    ///
    /// # Panics
    ///
    /// If the range ends behind the written bytes, or before it starts.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// buffer.put_slice(b"header:body");
    /// assert_eq!(buffer.freeze_range(7..), "body");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn freeze_range(self, range: impl RangeBounds<usize>) -> Bytes {
        let (start, end) = bounds(&range, self.len());
        let mut bytes = self.freeze_in_place();
        bytes.keep(start, end);
        bytes.into()
    }
}
