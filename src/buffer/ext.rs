//! Getting bytes out of the arena.

use bytes::{Bytes, BytesMut};

/// Copies bytes out of an arena, to keep them without keeping their slot.
pub trait BytesExt {
    /// Copies the bytes to the heap and drops the original: if it was the last of its slot, the
    /// slot is free.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// use uring_arena::BytesExt;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"kept for long");
    /// let owned = buffer.freeze().into_owned();
    /// assert_eq!(arena.metrics().bytes_live, 0);
    /// assert_eq!(&owned[..], b"kept for long");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn into_owned(self) -> BytesMut;
}

impl BytesExt for Bytes {
    fn into_owned(self) -> BytesMut {
        BytesMut::from(&self[..])
    }
}

impl BytesExt for super::ArenaBytes {
    fn into_owned(self) -> BytesMut {
        BytesMut::from(&self[..])
    }
}
