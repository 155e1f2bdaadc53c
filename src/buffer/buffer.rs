//! The buffer: a slot, or a block, that its owner may write.
//!
//! # Safety
//!
//! Unsafe here: making slices of the bytes that a buffer owns, and packing its parts.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::storage::Storage;
use crate::lease::Lease;

/// A slot of an arena that this value alone may read and write; dropping it frees the slot.
///
/// Bytes are appended through [`bytes::BufMut`]; [`freeze`](Buffer::freeze) turns what was written
/// into [`Bytes`](bytes::Bytes) without a copy. A buffer may move to another thread and be dropped
/// there. 32 bytes.
///
/// ```
/// use std::num::NonZeroUsize;
/// use bytes::BufMut;
/// use uring_arena::FixedArena;
///
/// let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// let mut buffer = arena.allocate()?;
/// buffer.put_u16(7);
/// buffer.put_slice(b"hello");
/// assert_eq!(buffer.len(), 7);
/// assert_eq!(&buffer[2..], b"hello");
/// let frozen = buffer.freeze();
/// assert_eq!(&frozen[2..], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Invariants: 1. `ptr..ptr + cap` is valid memory that this buffer alone uses: in the slot of the
/// lease in `home`, or, after a spill, in a vector that starts `home.heap_headroom()` bytes before
/// `ptr`. 2. The first `len <= cap` of it are initialised.
// In this order on purpose: moving a buffer reads `ptr` and `cap` as one, and the processor cannot
// forward two fresh stores to one load. So those two stand together, and freezing, which needs
// `home` first, does not wait.
#[repr(C)]
pub struct Buffer {
    pub(super) ptr: NonNull<u8>,
    pub(super) cap: usize,
    pub(super) len: usize,
    pub(super) home: Storage,
}

// SAFETY: the bytes are this buffer's own (invariant 1), and its home may move between threads.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives shared slices only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer over the first `cap` bytes of the slot of `lease`, which begins at `start`.
    #[inline]
    pub(crate) fn new(lease: Lease, start: NonNull<u8>, cap: usize) -> Buffer {
        debug_assert!(cap <= lease.slot_bytes() && start == lease.slot_start());
        Buffer { ptr: start, len: 0, cap, home: Storage::slot(lease) }
    }

    /// A buffer over a part of a slot: `len` initialised bytes at `ptr`, room for `cap`.
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
        Buffer { ptr, len, cap, home: Storage::slot(lease) }
    }

    /// An empty buffer without memory, to leave in place of one that is being moved.
    #[inline]
    pub(super) fn nowhere() -> Buffer {
        Buffer { ptr: NonNull::dangling(), len: 0, cap: 0, home: Storage::heap(0) }
    }

    /// Bytes that fit in this buffer, written ones included; more after a spill.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.cap
    }

    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes have moved to the heap, because more were written than the slot holds
    /// ([`auto_spill`](crate::FixedArenaBuilder::auto_spill)).
    #[inline]
    pub fn is_spilled(&self) -> bool {
        self.home.is_heap()
    }

    /// The index of the slot: its registered-buffer index and its provided-buffer id. `None` after
    /// a spill.
    ///
    /// In the buddy mode: the number of the first smallest block.
    #[inline]
    pub fn slot_index(&self) -> Option<u32> {
        self.home.lease().map(Lease::index)
    }

    /// The address of the first byte.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// The address of the first byte, for writing.
    ///
    /// Bytes past [`len`](Self::len) may be uninitialised; say how many are written by
    /// [`set_len`](Self::set_len).
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.note_exposed();
        self.ptr.as_ptr()
    }

    /// The room behind the written bytes, to write into; say how much was written by
    /// [`set_len`](Self::set_len).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # let (count, bytes) = (NonZeroUsize::new(1).unwrap(), NonZeroUsize::new(16).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.spare_capacity_mut()[0].write(42);
    /// // SAFETY: the first byte was written just now.
    /// unsafe { buffer.set_len(1) };
    /// assert_eq!(&buffer[..], [42]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        self.note_exposed();
        // SAFETY: `len <= cap`, so this stays within the buffer (invariant 1).
        let spare = unsafe { self.ptr.add(self.len) };
        // SAFETY: the rest of the buffer's own memory (invariant 1), for as long as the buffer is
        // borrowed.
        unsafe { std::slice::from_raw_parts_mut(spare.as_ptr().cast(), self.cap - self.len) }
    }

    /// Says that the first `len` bytes are written.
    ///
    /// # Safety
    ///
    /// `len` is at most [`capacity`](Self::capacity), and the first `len` bytes are initialised.
    #[inline]
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.cap);
        self.len = len;
    }

    /// Shortens the written part to `len` bytes; does nothing if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.note_len();
            self.len = len;
        }
    }

    /// Forgets what was written; the whole capacity is free again.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Drops the buffer, freeing its slot: a name for a drop that is meant.
    pub fn abandon(self) {
        drop(self);
    }

    /// Notes for `Zero` that the bytes up to the length have been written.
    #[inline]
    pub(super) fn note_len(&self) {
        self.note_up_to(self.len);
    }

    /// Notes for `Zero` that any byte may be written from now on, unseen.
    #[inline]
    fn note_exposed(&self) {
        self.note_up_to(self.cap);
    }

    #[inline]
    fn note_up_to(&self, end: usize) {
        if let Some(lease) = self.home.lease()
            && lease.header().has(crate::lease::ZERO)
        {
            self.record_written(lease, end);
        }
    }

    #[cold]
    fn record_written(&self, lease: &Lease, end: usize) {
        lease.record_written(self.ptr.addr().get() - lease.slot_start().addr().get() + end);
    }

    /// The parts, without dropping anything.
    #[inline]
    pub(super) fn into_parts(self) -> (NonNull<u8>, usize, usize, Storage) {
        // Field by field: a copy of the whole would read in halves what was just written in words,
        // which the processor cannot forward.
        let (ptr, len, cap) = (self.ptr, self.len, self.cap);
        // SAFETY: `self` is forgotten next, so the home is moved, not copied.
        let home = unsafe { std::ptr::read(&self.home) };
        std::mem::forget(self);
        (ptr, len, cap, home)
    }

    /// The lease and the range of the slot, or the buffer back if it has spilled.
    pub(crate) fn into_lease(self) -> Result<(Lease, NonNull<u8>, usize, usize), Buffer> {
        if self.is_spilled() {
            return Err(self);
        }
        self.note_len();
        let (ptr, len, cap, home) = self.into_parts();
        match home.into_lease() {
            Ok(lease) => Ok((lease, ptr, len, cap)),
            Err(_) => unreachable!("checked above"),
        }
    }

    /// Never frees the memory: the kernel may still use it.
    pub(crate) fn quarantine(self) {
        match self.into_lease() {
            Ok((lease, ..)) => lease.quarantine(),
            Err(spilled) => std::mem::forget(spilled),
        }
    }

    /// The lease, unless the buffer has spilled.
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.home.lease()
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
        // What is left in its place needs no drop of its own.
        match std::mem::replace(&mut self.home, Storage::heap(0)).into_lease() {
            Ok(lease) => lease.free_written(self.len),
            Err(headroom) => self.drop_heap(headroom),
        }
    }
}
