//! Frozen bytes of an arena: pointer, length and storage, without any heap allocation.
//!
//! # Safety
//!
//! Unsafe here: making slices of bytes that many may read, and moving a range within itself.
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::storage::{SharedStorage, Storage};
use crate::lease::{CopyCharge, Lease, Run};
use bytes::{Buf, Bytes, BytesMut};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::{Bound, Deref, RangeBounds};
use std::ptr::NonNull;

/// A range of written bytes that many may read.
///
/// The drop of the last owner frees the slot, on whatever thread. An `ArenaBytes` is like
/// [`Bytes`], but its owners are counted beside the slot. Making one allocates nothing, and the
/// drop of the only owner does no atomic read-modify-write besides freeing the slot. It is 24 bytes
/// large. [`Bytes::from`] turns it into `Bytes` where a library wants them, and
/// [`try_into_buffer`](Self::try_into_buffer) into a [`Buffer`] again.
///
/// **A slice of one byte keeps its whole slot.**
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let mut buffer = FixedArena::new(8, 4096)?.allocate()?;
/// buffer.put_slice(b"key=value");
/// let mut line = buffer.freeze_in_place();
/// let key = line.split_to(3);
/// assert_eq!((&key[..], &line[..]), (&b"key"[..], &b"=value"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// Invariant: `ptr..ptr + len` are initialised bytes of the storage, and nothing writes them while
// the value exists.
pub struct ArenaBytes {
    ptr: NonNull<u8>,
    len: usize,
    storage: SharedStorage,
}

// SAFETY: bytes that nothing writes (invariant), and a storage that may move between threads.
unsafe impl Send for ArenaBytes {}
// SAFETY: as above; a shared one can be read and cloned, and the count is atomic.
unsafe impl Sync for ArenaBytes {}

impl ArenaBytes {
    #[inline]
    pub(super) fn new(ptr: NonNull<u8>, len: usize, storage: SharedStorage) -> ArenaBytes {
        ArenaBytes { ptr, len, storage }
    }

    /// Makes the only owner of bytes that the kernel wrote into the slot of `lease`.
    ///
    /// # Safety
    ///
    /// The range lies in the slot, is initialised, and nothing writes it any more.
    #[inline]
    pub(crate) unsafe fn from_lease(lease: Lease, ptr: NonNull<u8>, len: usize) -> ArenaBytes {
        let lease = lease.with_freeze_counted();
        ArenaBytes { ptr, len, storage: SharedStorage::slot(lease) }
    }

    /// Makes the only owner of bytes that the kernel wrote into the slots of `run`.
    ///
    /// # Safety
    ///
    /// The range lies in the slots, is initialised, and nothing writes it any more.
    #[cfg_attr(
        not(any(all(feature = "io-uring", target_os = "linux"), test)),
        allow(dead_code, reason = "only the kernel writes several slots at once")
    )]
    pub(crate) unsafe fn from_run(run: Run, ptr: NonNull<u8>, len: usize) -> ArenaBytes {
        run.record_freeze();
        ArenaBytes { ptr, len, storage: SharedStorage::run(run) }
    }

    /// Makes one more owner of the slot of `lease`, whose owner goes on holding it.
    ///
    /// # Safety
    ///
    /// The range lies in the slot, is initialised, and nothing writes it any more. The owner of
    /// `lease` ends it by `Lease::dec_ref`, not by dropping it.
    #[inline]
    pub(crate) unsafe fn clone_ref(lease: &Lease, ptr: NonNull<u8>, len: usize) -> ArenaBytes {
        lease.record_freeze();
        ArenaBytes { ptr, len, storage: SharedStorage::clone_ref(lease) }
    }

    /// Makes the only owner of the bytes of `vector` behind its first `headroom` ones.
    pub(crate) fn from_vector(vector: Vec<u8>, headroom: usize) -> ArenaBytes {
        ArenaBytes::on_heap(vector, headroom, None)
    }

    /// Makes the only owner of a copy of received bytes.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn copied(bytes: &[u8], charge: CopyCharge) -> ArenaBytes {
        ArenaBytes::on_heap(bytes.to_vec(), 0, Some(charge))
    }

    fn on_heap(mut vector: Vec<u8>, headroom: usize, charge: Option<CopyCharge>) -> ArenaBytes {
        let start = NonNull::new(vector.as_mut_ptr()).expect("a vector's pointer is never null");
        // SAFETY: the vector holds at least the head room.
        let ptr = unsafe { start.add(headroom) };
        let len = vector.len() - headroom;
        ArenaBytes { ptr, len, storage: SharedStorage::heap(vector, charge) }
    }

    /// Returns the number of bytes in this range.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if the range is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the index of the slot, or `None` if the bytes spilled. Of bytes that lie in several
    /// slots it is the first one.
    ///
    /// In a fixed arena it is the registered-buffer index and the provided-buffer id of the slot.
    /// In a buddy arena it is the index of the first smallest block.
    #[inline]
    pub fn slot_index(&self) -> Option<u32> {
        match self.storage.lease() {
            Some(lease) => Some(lease.index()),
            None => self.storage.as_run().map(|run| run.index()),
        }
    }

    /// Returns the number of adjacent slots that the bytes lie in and keep: 0 if they spilled.
    ///
    /// A large message that came through a buffer ring may lie in several slots, which are freed
    /// together by the last drop.
    ///
    /// ```
    /// let bytes = uring_arena::FixedArena::new(1, 64)?.allocate()?.freeze_in_place();
    /// assert_eq!(bytes.slot_count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_count(&self) -> usize {
        match self.storage.lease() {
            Some(_) => 1,
            None => self.storage.as_run().map_or(0, |run| run.count() as usize),
        }
    }

    /// Returns a part of this range. Both share the slot.
    ///
    /// # Panics
    ///
    /// If the range ends behind the bytes, or before it starts.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// buffer.put_slice(b"header:body");
    /// assert_eq!(buffer.freeze_in_place().slice(7..), "body");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> ArenaBytes {
        let (start, end) = bounds(&range, self.len);
        let mut slice = self.clone();
        slice.keep(start, end);
        slice
    }

    /// Splits the range in two: returns the bytes before `at`, and keeps the rest.
    ///
    /// The example of [`ArenaBytes`] shows it.
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

    /// Splits the range in two: keeps the bytes before `at`, and returns the rest.
    ///
    /// # Panics
    ///
    /// If `at > len`.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// buffer.put_slice(b"ab");
    /// let mut first = buffer.freeze_in_place();
    /// let second = first.split_off(1);
    /// assert_eq!((&first[..], &second[..]), (&b"a"[..], &b"b"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Returns true if this is the only owner of its slot.
    ///
    /// Spilled bytes have no slot, and are never unique.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// buffer.put_slice(b"ab");
    /// let bytes = buffer.freeze_in_place();
    /// assert!(bytes.is_unique());
    /// let clone = bytes.clone();
    /// assert!(!bytes.is_unique());
    /// # drop(clone);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn is_unique(&self) -> bool {
        match self.storage.lease() {
            Some(lease) => lease.header().is_unique(),
            None => self.storage.as_run().is_some_and(|run| run.lease(0).header().is_unique()),
        }
    }

    /// Turns the bytes into a buffer again, with the rest of the slot as room behind them.
    ///
    /// # Errors
    ///
    /// The bytes themselves, if they have another owner, have spilled, or lie in several slots.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 64)?.allocate()?;
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
        let ArenaBytes { ptr, len, storage } = self;
        match storage.into_unique_lease() {
            Ok(lease) => {
                let before = ptr.addr().get() - lease.slot_start().addr().get();
                let cap = lease.slot_bytes() - before;
                // SAFETY: the range lies in the slot, is initialised (invariant), and this value
                // was the only owner.
                Ok(unsafe { Buffer::from_parts(lease, ptr, len, cap) })
            }
            Err(storage) => Err(ArenaBytes { ptr, len, storage }),
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

    /// Leaks this owner's share, so that the slot is never freed, and counts the slot as lost: the
    /// kernel may still read it.
    pub(crate) fn quarantine(self) {
        if let Some(lease) = self.lease() {
            lease.mark_quarantined();
        }
        if let Some(run) = self.storage.as_run() {
            run.mark_quarantined();
        }
        std::mem::forget(self);
    }

    /// Returns the shared lease, unless the bytes have spilled or lie in several slots.
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.storage.lease()
    }
}

impl Clone for ArenaBytes {
    #[inline]
    fn clone(&self) -> ArenaBytes {
        ArenaBytes { ptr: self.ptr, len: self.len, storage: self.storage.clone() }
    }
}

impl Deref for ArenaBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        #[cfg(uring_arena_loom)]
        if let Some(lease) = self.storage.lease() {
            lease.header().bytes.with(|_| ());
        }
        #[cfg(uring_arena_loom)]
        if let Some(run) = self.storage.as_run() {
            (0..run.count()).for_each(|slot| run.lease(slot).header().bytes.with(|_| ()));
        }
        // SAFETY: initialised bytes that nothing writes (invariant).
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
    /// Makes one heap allocation, inside [`Bytes::from_owner`]; none if the range is empty.
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

/// A way to keep bytes of an arena without keeping their slot.
pub trait BytesExt {
    /// Copies the bytes to the heap and drops the original.
    ///
    /// The slot is free if the original was its last owner.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{BytesExt, FixedArena};
    ///
    /// let arena = FixedArena::new(1, 64)?;
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

impl BytesExt for ArenaBytes {
    fn into_owned(self) -> BytesMut {
        BytesMut::from(&self[..])
    }
}

/// Returns the start and the end of a range of `len` bytes.
///
/// Panics if the range does not lie in them, as slicing does.
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

impl PartialEq for ArenaBytes {
    fn eq(&self, other: &ArenaBytes) -> bool {
        self[..] == other[..]
    }
}

impl Eq for ArenaBytes {}

impl PartialOrd for ArenaBytes {
    fn partial_cmp(&self, other: &ArenaBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArenaBytes {
    fn cmp(&self, other: &ArenaBytes) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for ArenaBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl Borrow<[u8]> for ArenaBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Implements equality with other kinds of bytes, both ways round.
macro_rules! equal_to {
    ($($other:ty),+ $(,)?) => {$(
        impl PartialEq<$other> for ArenaBytes {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                self[..] == *other
            }
        }

        impl PartialEq<ArenaBytes> for $other {
            fn eq(&self, other: &ArenaBytes) -> bool {
                other == self
            }
        }
    )+};
}

equal_to!([u8], str, Vec<u8>, String, Bytes, &[u8], &str);

impl std::fmt::Debug for ArenaBytes {
    /// Prints a byte string: `b"key=\x00"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

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
        match self.into_frozen() {
            Ok(frozen) => frozen.into(),
            Err(spilled) => spilled.freeze_spilled(),
        }
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
        match self.into_frozen() {
            Ok(frozen) => frozen,
            Err(spilled) => spilled.freeze_spilled_in_place(),
        }
    }

    /// Returns the written bytes, or the buffer back if it has spilled.
    ///
    /// The parts are taken out first, and no address of one is passed on. So they stay in
    /// registers, and what a caller has just written in words is never read in halves.
    #[inline(always)] // as `freeze`
    fn into_frozen(self) -> Result<ArenaBytes, Buffer> {
        let (ptr, len, cap, storage) = self.into_parts();
        match storage.into_lease() {
            Ok(lease) => {
                let lease = lease.with_freeze_recorded(ptr, len);
                Ok(ArenaBytes::new(ptr, len, SharedStorage::slot(lease)))
            }
            Err(headroom) => Err(Buffer { ptr, len, cap, storage: Storage::heap(headroom) }),
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
