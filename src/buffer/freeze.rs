//! Freezing: what was written becomes readable by many, without a copy.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::storage::SharedStorage;
use super::{ArenaBytes, Buffer};

impl Buffer {
    /// Turns what was written into [`Bytes`] without copying it.
    ///
    /// The slot is free again when the last clone or slice of the result is dropped, on whatever
    /// thread: **a slice of one byte keeps its whole slot**; copy it out
    /// ([`BytesExt::into_owned`](crate::BytesExt)) to keep little for long. One heap allocation,
    /// inside [`Bytes::from_owner`]. A spilled buffer gives its heap memory.
    ///
    /// An empty buffer frees its slot at once.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
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
    #[inline(always)] // see `FixedArena::allocate`: a buffer that goes through memory costs more than the freeze
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

    /// Turns what was written into [`ArenaBytes`]: like `Bytes`, but without any heap allocation.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"hello");
    /// let bytes = buffer.freeze_in_place();
    /// assert_eq!(bytes, b"hello"[..]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as `freeze`
    pub fn freeze_in_place(self) -> ArenaBytes {
        self.note_len();
        if self.is_spilled() {
            return self.freeze_spilled_in_place();
        }
        let (ptr, len, _, home) = self.into_parts();
        match home.into_lease() {
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

    /// Turns a part of what was written into [`Bytes`]; the rest is dropped, and not copied either.
    ///
    /// # Panics
    ///
    /// If the range ends behind the written bytes or before it starts.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
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

/// SlotPtr and end of a range in something of `len` bytes.
///
/// Panics if the range does not lie in it, as slicing does.
pub(super) fn bounds(range: &impl RangeBounds<usize>, len: usize) -> (usize, usize) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => {
            before.checked_add(1).expect("range start does not fit in usize")
        }
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.checked_add(1).expect("range end does not fit in usize"),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(start <= end, "range starts at {start} but ends at {end}");
    assert!(end <= len, "range ends at {end} but there are {len} bytes");
    (start, end)
}
