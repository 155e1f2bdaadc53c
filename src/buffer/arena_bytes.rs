//! Frozen bytes that have not left the arena: a pointer, a length and a home; no heap allocation.
//!
//! # Safety
//!
//! Unsafe here: slices of bytes that many may read, and moving a range within itself.
#![allow(unsafe_code)]

use std::ops::{Deref, RangeBounds};
use std::ptr::NonNull;

use bytes::{Buf, Bytes};

use super::Buffer;
use super::freeze::bounds;
use super::storage::SharedStorage;
use crate::lease::Lease;

/// Bytes of a slot that many may read; the last owner's drop frees the slot, on whatever thread.
///
/// What [`Bytes`] is, but counted beside the slot: making one allocates nothing, and a sole owner's
/// drop does no atomic read-modify-write besides freeing the slot. 24 bytes. [`Bytes::from`] turns
/// it into `Bytes` where a library wants them.
///
/// **A slice of one byte keeps its whole slot.**
///
/// ```
/// use std::num::NonZeroUsize;
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// let mut buffer = arena.allocate()?;
/// buffer.put_slice(b"key=value");
/// let mut line = buffer.freeze_in_place();
/// let key = line.split_to(3);
/// assert_eq!((&key[..], &line[..]), (&b"key"[..], &b"=value"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Invariant: `ptr..ptr + len` are initialised bytes of the home, which nobody writes while it
/// exists.
pub struct ArenaBytes {
    ptr: NonNull<u8>,
    len: usize,
    home: SharedStorage,
}

// SAFETY: bytes that nobody writes (invariant), and a home that may move between threads.
unsafe impl Send for ArenaBytes {}
// SAFETY: as above; a shared one can be read and cloned, and the count is atomic.
unsafe impl Sync for ArenaBytes {}

impl ArenaBytes {
    #[inline]
    pub(super) fn new(ptr: NonNull<u8>, len: usize, home: SharedStorage) -> ArenaBytes {
        ArenaBytes { ptr, len, home }
    }

    /// Bytes that the kernel wrote into the slot of `lease`, whose only owner this becomes.
    ///
    /// # Safety
    ///
    /// The range lies in the slot, is initialised, and nobody writes it any more.
    #[inline]
    pub(crate) unsafe fn from_lease(lease: Lease, ptr: NonNull<u8>, len: usize) -> ArenaBytes {
        lease.record_freeze();
        ArenaBytes { ptr, len, home: SharedStorage::slot(lease) }
    }

    /// Bytes of a slot that `lease`'s owner goes on holding; counted as one more owner.
    ///
    /// # Safety
    ///
    /// The range lies in the slot, is initialised, and nobody writes it any more. The owner of
    /// `lease` gives it up by `Lease::dec_ref`, not by dropping it.
    #[inline]
    pub(crate) unsafe fn clone_ref(lease: &Lease, ptr: NonNull<u8>, len: usize) -> ArenaBytes {
        lease.record_freeze();
        ArenaBytes { ptr, len, home: SharedStorage::clone_ref(lease) }
    }

    pub(crate) fn from_vector(mut vector: Vec<u8>, headroom: usize) -> ArenaBytes {
        let start = NonNull::new(vector.as_mut_ptr()).expect("a vector's pointer is never null");
        // SAFETY: the vector holds at least the head room.
        let ptr = unsafe { start.add(headroom) };
        ArenaBytes { ptr, len: vector.len() - headroom, home: SharedStorage::heap(vector) }
    }

    /// Bytes in this range.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index of the slot: its registered-buffer index and its provided-buffer id. `None` if the
    /// bytes spilled.
    #[inline]
    pub fn slot_index(&self) -> Option<u32> {
        self.home.lease().map(Lease::index)
    }

    /// A part of this range, sharing the slot.
    ///
    /// # Panics
    ///
    /// If the range ends behind the bytes or before it starts.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> ArenaBytes {
        let (start, end) = bounds(&range, self.len);
        let mut slice = self.clone();
        slice.keep(start, end);
        slice
    }

    /// Splits the range in two: `self` keeps from `at` on, the bytes before are returned.
    ///
    /// # Panics
    ///
    /// If `at > len`.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> ArenaBytes {
        let front = self.slice(..at);
        self.keep(at, self.len);
        front
    }

    /// Splits the range in two: `self` keeps the bytes before `at`, those from there on are
    /// returned.
    ///
    /// # Panics
    ///
    /// If `at > len`.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> ArenaBytes {
        let back = self.slice(at..);
        self.keep(0, at);
        back
    }

    /// Shortens the range to `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Whether this is the only owner of its slot.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.home.lease().is_some_and(|lease| lease.header().is_unique())
    }

    /// A buffer again, with these bytes written and the rest of the slot as room behind them.
    ///
    /// # Errors
    ///
    /// The bytes back, if they have another owner or have spilled.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bytes::BufMut;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"ab");
    /// let frozen = buffer.freeze_in_place();
    /// let clone = frozen.clone();
    /// let frozen = frozen.try_into_buffer().unwrap_err();
    /// drop(clone);
    /// let mut buffer = frozen.try_into_buffer().unwrap();
    /// buffer.put_u8(b'c');
    /// assert_eq!(&buffer[..], b"abc");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_into_buffer(self) -> Result<Buffer, ArenaBytes> {
        let ArenaBytes { ptr, len, home } = self;
        match home.into_sole_lease() {
            Ok(lease) => {
                let before = ptr.addr().get() - lease.slot_start().addr().get();
                let cap = lease.slot_bytes() - before;
                // SAFETY: the range lies in the slot, is initialised (invariant), and the lease is
                // ours alone.
                Ok(unsafe { Buffer::from_parts(lease, ptr, len, cap) })
            }
            Err(home) => Err(ArenaBytes { ptr, len, home }),
        }
    }

    /// Keeps only the bytes from `start` to `end`, which lie in the range.
    #[inline]
    pub(super) fn keep(&mut self, start: usize, end: usize) {
        debug_assert!(start <= end && end <= self.len);
        // SAFETY: `start <= len`: at most one past the range.
        self.ptr = unsafe { self.ptr.add(start) };
        self.len = end - start;
    }

    /// Never gives this owner's share up, and so never frees the slot: the kernel may still read
    /// it.
    pub(crate) fn quarantine(self) {
        if let Some(lease) = self.lease() {
            lease.mark_quarantined();
        }
        std::mem::forget(self);
    }

    /// The shared lease, unless the bytes have spilled.
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.home.lease()
    }
}

impl Clone for ArenaBytes {
    #[inline]
    fn clone(&self) -> ArenaBytes {
        ArenaBytes { ptr: self.ptr, len: self.len, home: self.home.clone() }
    }
}

impl Deref for ArenaBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        #[cfg(uring_arena_loom)]
        if let Some(lease) = self.home.lease() {
            lease.header().bytes.with(|_| ());
        }
        // SAFETY: initialised bytes that nobody writes (invariant).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for ArenaBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Buf for ArenaBytes {
    #[inline]
    fn remaining(&self) -> usize {
        self.len
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "cannot advance by {count} bytes, {} bytes remaining", self.len);
        self.keep(count, self.len);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "cannot take {len} bytes, {} bytes remaining", self.len);
        self.split_to(len).into()
    }
}

impl From<ArenaBytes> for Bytes {
    /// One heap allocation, inside [`Bytes::from_owner`]; none if the range is empty.
    #[inline]
    fn from(bytes: ArenaBytes) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(bytes)
    }
}

impl From<Buffer> for ArenaBytes {
    fn from(buffer: Buffer) -> ArenaBytes {
        buffer.freeze_in_place()
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Bytes {
        buffer.freeze()
    }
}
