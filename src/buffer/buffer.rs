//! The buffer: a slot, or a block, that its owner may write.
//!
//! # Safety
//!
//! Unsafe here: making slices of the bytes that a buffer owns, moving its start within its memory,
//! and taking it apart.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::storage::Storage;
use crate::lease::{Lease, ZERO};

/// A slot of an arena that this value alone may read and write; dropping it frees the slot.
///
/// Bytes are appended through [`bytes::BufMut`] or [`std::io::Write`]. [`freeze`](Buffer::freeze)
/// turns the written bytes into [`Bytes`](bytes::Bytes) without a copy. A buffer may move to
/// another thread and be dropped there. It is 32 bytes large.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let arena = FixedArena::new(8, 4096)?;
/// let mut buffer = arena.allocate()?;
/// buffer.put_u16(7);
/// buffer.put_slice(b"hello");
/// assert_eq!(buffer.len(), 7);
/// assert_eq!(&buffer[2..], b"hello");
/// let frozen = buffer.freeze();
/// assert_eq!(&frozen[2..], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// Invariants:
// 1. `ptr..ptr + cap` is valid memory that this buffer alone uses. It lies in the slot of the lease
//    in `storage`, or, after a spill, in a vector that starts `storage.heap_headroom()` bytes
//    before `ptr`.
// 2. The first `len` bytes of it, `len <= cap`, are initialised.
//
// The order of the fields is on purpose. Moving a buffer reads `ptr` and `cap` as one, and the
// processor cannot forward two fresh stores to one load. So these two stand together, and freezing,
// which needs `storage` first, does not wait.
#[repr(C)]
pub struct Buffer {
    pub(super) ptr: NonNull<u8>,
    pub(super) cap: usize,
    pub(super) len: usize,
    pub(super) storage: Storage,
}

// SAFETY: the bytes are this buffer's own (invariant 1), and its storage may move between threads.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives shared slices only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Makes a buffer over the first `cap` bytes of the slot of `lease`, which begins at `start`.
    #[inline]
    pub(crate) fn new(lease: Lease, start: NonNull<u8>, cap: usize) -> Buffer {
        debug_assert!(cap <= lease.slot_bytes() && start == lease.slot_start());
        Buffer { ptr: start, len: 0, cap, storage: Storage::slot(lease) }
    }

    /// Makes a buffer over a part of a slot: `len` initialised bytes at `ptr`, room for `cap`.
    ///
    /// # Safety
    ///
    /// The range lies in the slot of `lease`, and its first `len` bytes are initialised.
    #[inline]
    pub(crate) unsafe fn from_parts(
        lease: Lease,
        ptr: NonNull<u8>,
        len: usize,
        cap: usize,
    ) -> Buffer {
        debug_assert!(len <= cap);
        debug_assert!(ptr >= lease.slot_start());
        Buffer { ptr, len, cap, storage: Storage::slot(lease) }
    }

    /// Makes a buffer without memory, to leave in place of one that is being moved.
    #[inline]
    pub(super) fn dangling() -> Buffer {
        Buffer { ptr: NonNull::dangling(), len: 0, cap: 0, storage: Storage::heap(0) }
    }

    /// Returns the number of bytes that fit in this buffer, written ones included.
    ///
    /// The capacity grows with a spill.
    ///
    /// ```
    /// let mut buffer = uring_arena::FixedArena::new(1, 4096)?.allocate()?;
    /// assert_eq!((buffer.capacity(), buffer.len(), buffer.is_empty()), (4096, 0, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn capacity(&self) -> usize {
        self.cap
    }

    /// Returns the number of bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if nothing has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns true if the bytes have moved to the heap.
    ///
    /// That happens when more is written than the slot holds, in an arena built with
    /// [`auto_spill`](crate::FixedArenaBuilder::auto_spill).
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::with_sizes(1, 4).auto_spill().build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"five!");
    /// assert!(buffer.is_spilled());
    /// assert_eq!(arena.slot_states().free, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn is_spilled(&self) -> bool {
        self.storage.is_heap()
    }

    /// Returns the index of the slot, or `None` after a spill.
    ///
    /// In a fixed arena it is the registered-buffer index and the provided-buffer id of the slot.
    /// In a buddy arena it is the index of the first smallest block.
    ///
    /// ```
    /// let buffer = uring_arena::FixedArena::new(8, 64)?.allocate()?;
    /// assert!(buffer.slot_index().unwrap() < 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn slot_index(&self) -> Option<u32> {
        self.storage.lease().map(Lease::index)
    }

    /// Returns the address of the first byte.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// Returns the address of the first byte, for writing.
    ///
    /// Bytes past [`len`](Self::len) may be uninitialised; [`set_len`](Self::set_len) makes bytes
    /// count as written.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.record_exposed();
        self.ptr.as_ptr()
    }

    /// Returns the room behind the written bytes, to write into.
    ///
    /// [`set_len`](Self::set_len) makes bytes count as written.
    ///
    /// ```
    /// let mut buffer = uring_arena::FixedArena::new(1, 16)?.allocate()?;
    /// buffer.spare_capacity_mut()[0].write(42);
    /// // SAFETY: the first byte was written just now.
    /// unsafe { buffer.set_len(1) };
    /// assert_eq!(&buffer[..], [42]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        self.record_exposed();
        // SAFETY: `len <= cap`, so this stays within the buffer (invariant 1).
        let spare = unsafe { self.ptr.add(self.len) };
        // SAFETY: the rest of the buffer's own memory (invariant 1), for as long as the buffer is
        // borrowed.
        unsafe { std::slice::from_raw_parts_mut(spare.as_ptr().cast(), self.cap - self.len) }
    }

    /// Makes the first `len` bytes count as written.
    ///
    /// The example of [`spare_capacity_mut`](Self::spare_capacity_mut) shows it.
    ///
    /// # Safety
    ///
    /// `len` is at most [`capacity`](Self::capacity), and the first `len` bytes are initialised.
    #[inline]
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.cap);
        if len < self.len {
            self.record_len();
        }
        self.len = len;
    }

    /// Shortens the written part to `len` bytes; does nothing if it is not longer.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut buffer = uring_arena::FixedArena::new(1, 16)?.allocate()?;
    /// buffer.put_slice(b"hello");
    /// buffer.truncate(2);
    /// assert_eq!(&buffer[..], b"he");
    /// buffer.clear();
    /// assert!(buffer.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.record_len();
            self.len = len;
        }
    }

    /// Forgets the written bytes; the whole capacity is room again.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Sets the first `bytes` bytes of an empty buffer aside for [`prepend`](Self::prepend).
    ///
    /// The bytes add to head room set aside before. The capacity shrinks by as much.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] if the buffer is not that large, or if something has been written
    /// already.
    ///
    /// ```
    /// use bytes::BufMut;
    ///
    /// let mut frame = uring_arena::FixedArena::new(1, 64)?.allocate()?;
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

    /// Returns the number of bytes of head room left before the payload.
    ///
    /// ```
    /// let mut frame = uring_arena::FixedArena::new(1, 64)?.allocate()?;
    /// frame.reserve_headroom(16)?;
    /// assert_eq!((frame.headroom(), frame.capacity()), (16, 48));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn headroom(&self) -> usize {
        match self.lease() {
            Some(lease) => self.ptr.addr().get() - lease.slot_start().addr().get(),
            None => self.storage.heap_headroom(),
        }
    }

    /// Puts `data` right before the written bytes, in the head room.
    ///
    /// The example of [`reserve_headroom`](Self::reserve_headroom) shows it.
    ///
    /// # Errors
    ///
    /// [`BufferFullError`] if less than `data.len()` bytes of head room are left. The buffer stays
    /// as it was.
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
            self.storage = Storage::heap(headroom - data.len());
        }
        Ok(())
    }

    /// Sets the label of the claim, for [`Holders`](crate::Holders). It stays with the bytes when
    /// the buffer is frozen.
    ///
    /// Does nothing if the claim is not recorded, or has spilled. Each label that differs is kept
    /// for ever: use few.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.label("requests");
    /// buffer.put_slice(b"GET");
    /// let bytes = buffer.freeze();
    /// assert_eq!(arena.holders().iter().next().unwrap().label.as_deref(), Some("requests"));
    /// # drop(bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "holders")]
    pub fn label(&mut self, label: &str) {
        if let Some(lease) = self.lease() {
            lease.record_label(label);
        }
    }

    /// Records the connection that the bytes came from, if the claim is recorded.
    #[inline]
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "pools have connections"))]
    pub(crate) fn record_connection(&self, number: u64) {
        #[cfg(feature = "holders")]
        if let Some(lease) = self.lease() {
            lease.record_receipt(self.len, Some(number));
        }
        #[cfg(not(feature = "holders"))]
        let _ = number;
    }

    /// Drops the buffer, and so frees its slot: a name for a drop that is meant.
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::new(1, 16)?;
    /// arena.allocate()?.abandon();
    /// assert_eq!(arena.slot_states().free, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abandon(self) {
        drop(self);
    }

    /// Records for `InitPolicy::Zero` that the bytes up to the length have been written.
    #[inline]
    pub(super) fn record_len(&self) {
        self.record_up_to(self.len);
    }

    /// Records for `InitPolicy::Zero` that any byte may be written from now on, unseen.
    #[inline]
    fn record_exposed(&self) {
        self.record_up_to(self.cap);
    }

    #[inline]
    fn record_up_to(&self, end: usize) {
        if let Some(lease) = self.storage.lease()
            && lease.header().has(ZERO)
        {
            self.record_written(lease, end);
        }
    }

    #[cold]
    fn record_written(&self, lease: &Lease, end: usize) {
        lease.record_written(self.ptr.addr().get() - lease.slot_start().addr().get() + end);
    }

    /// Returns the parts, without dropping anything.
    #[inline]
    pub(super) fn into_parts(self) -> (NonNull<u8>, usize, usize, Storage) {
        // Field by field: a copy of the whole would read in halves the words just written, which
        // the processor cannot forward.
        let (ptr, len, cap) = (self.ptr, self.len, self.cap);
        // SAFETY: `self` is forgotten next.
        let storage = unsafe { self.storage.take() };
        std::mem::forget(self);
        (ptr, len, cap, storage)
    }

    /// Returns the lease and the range of the slot, or the buffer back if it has spilled.
    pub(crate) fn into_lease(self) -> Result<(Lease, NonNull<u8>, usize, usize), Buffer> {
        if self.is_spilled() {
            return Err(self);
        }
        self.record_len();
        let (ptr, len, cap, storage) = self.into_parts();
        match storage.into_lease() {
            Ok(lease) => Ok((lease, ptr, len, cap)),
            Err(_) => unreachable!("checked above"),
        }
    }

    /// Leaks the memory, because the kernel may still use it, and counts its slot as lost.
    pub(crate) fn quarantine(self) {
        match self.into_lease() {
            Ok((lease, ..)) => lease.quarantine(),
            Err(spilled) => std::mem::forget(spilled),
        }
    }

    /// Returns the lease, unless the buffer has spilled.
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.storage.lease()
    }
}

/// The refusal of bytes that do not fit in a [`Buffer`].
///
/// ```
/// let mut buffer = uring_arena::FixedArena::new(1, 4)?.allocate()?;
/// let error = buffer.try_put_slice(b"hello").unwrap_err();
/// assert_eq!((error.remaining, error.requested), (4, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "buffer full: {requested} bytes requested, {remaining} bytes remaining; check with will_fit, use larger slots, or build the arena with auto_spill"
)]
#[non_exhaustive]
pub struct BufferFullError {
    /// The bytes remaining in the buffer.
    pub remaining: usize,
    /// The bytes that were requested.
    pub requested: usize,
}

debug_is_display!(BufferFullError);

into_io_error!(BufferFullError);

impl BufferFullError {
    fn kind(&self) -> io::ErrorKind {
        io::ErrorKind::WriteZero
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are this buffer's own and initialised (invariants 1 and 2).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer")
            .field("slot_index", &self.slot_index())
            .field("len", &self.len)
            .field("capacity", &self.cap)
            .finish()
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer ends here; `drop_heap` sets another storage first.
        match unsafe { self.storage.take() }.into_lease() {
            Ok(lease) => lease.free_written(|| (self.ptr, self.len)),
            Err(headroom) => self.drop_heap(headroom),
        }
    }
}
