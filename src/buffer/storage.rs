//! Where a buffer's or a frozen range's bytes live: in a slot, or on the heap after a spill. Eight
//! bytes.
//!
//! # Safety
//!
//! Unsafe here: packing a lease, or a counted vector, into one tagged pointer and taking it out
//! again.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use crate::lease::Lease;
use crate::sync::Arc;

/// Set in the address of everything that is not a lease; headers and vectors are aligned to more
/// than this.
const HEAP: usize = 1;

/// The home of a [`Buffer`](super::Buffer).
///
/// Invariant: an even address is a lease of this value's own (`Lease::into_raw`); an odd one
/// carries the head room of a spilled buffer in its other bits, and points nowhere.
pub(super) struct Storage(NonNull<u8>);

// SAFETY: it is a `Lease`, which is Send and Sync, or a number.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    #[inline]
    pub(super) fn slot(lease: Lease) -> Storage {
        Storage(lease.into_raw().cast())
    }

    /// The home of a buffer on the heap, `headroom` bytes behind the start of its vector.
    #[inline]
    pub(super) fn heap(headroom: usize) -> Storage {
        let tagged = NonZeroUsize::MIN | headroom << 1;
        Storage(
            NonNull::new(std::ptr::without_provenance_mut(tagged.get())).expect("odd, so not zero"),
        )
    }

    #[inline]
    pub(super) fn is_heap(&self) -> bool {
        self.0.addr().get() & HEAP != 0
    }

    /// The lease, or `None` after a spill.
    #[inline]
    pub(super) fn lease(&self) -> Option<&Lease> {
        if self.is_heap() {
            return None;
        }
        // SAFETY: an even address is a lease (invariant), and `Lease` is a transparent pointer of
        // the same size.
        Some(unsafe { &*std::ptr::from_ref(&self.0).cast::<Lease>() })
    }

    /// The lease by value, or the head room of a spilled buffer.
    #[inline]
    pub(super) fn into_lease(self) -> Result<Lease, usize> {
        let this = ManuallyDrop::new(self);
        if this.is_heap() {
            return Err(this.0.addr().get() >> 1);
        }
        // SAFETY: from `into_raw` (invariant); `this` does not drop it.
        Ok(unsafe { Lease::from_raw(this.0.cast()) })
    }

    /// Head room of a spilled buffer.
    pub(super) fn heap_headroom(&self) -> usize {
        debug_assert!(self.is_heap());
        self.0.addr().get() >> 1
    }
}

impl Drop for Storage {
    #[inline]
    fn drop(&mut self) {
        if !self.is_heap() {
            // SAFETY: from `into_raw` (invariant), and dropped once.
            drop(unsafe { Lease::from_raw(self.0.cast()) });
        }
    }
}

/// The home of an [`ArenaBytes`](super::ArenaBytes): shared by its clones.
///
/// Invariant: an even address is a lease shared by the count in its header; an odd one is a counted
/// vector (`Arc::into_raw`), of which this value holds one count.
pub(super) struct SharedStorage(NonNull<u8>);

// SAFETY: a lease and an `Arc<Vec<u8>>` are Send and Sync.
unsafe impl Send for SharedStorage {}
// SAFETY: as above.
unsafe impl Sync for SharedStorage {}

impl SharedStorage {
    /// The only owner of `lease`.
    #[inline]
    pub(super) fn slot(lease: Lease) -> SharedStorage {
        SharedStorage(lease.into_raw().cast())
    }

    /// One more owner of a slot that `lease`'s owner shares.
    #[inline]
    pub(super) fn clone_ref(lease: &Lease) -> SharedStorage {
        lease.header().inc_ref();
        // SAFETY: a copy of the pointer, as one more owner: counted just now. Only the last owner
        // drops it.
        let copy = unsafe { std::ptr::read(lease) };
        SharedStorage(copy.into_raw().cast())
    }

    pub(super) fn heap(vector: Vec<u8>) -> SharedStorage {
        let raw = Arc::into_raw(Arc::new(vector)).cast::<u8>().cast_mut();
        let raw = NonNull::new(raw).expect("an Arc is never null");
        SharedStorage(raw.map_addr(|address| address | HEAP))
    }

    #[inline]
    fn is_heap(&self) -> bool {
        self.0.addr().get() & HEAP != 0
    }

    fn vector(&self) -> *const Vec<u8> {
        debug_assert!(self.is_heap());
        self.0.as_ptr().map_addr(|address| address & !HEAP).cast()
    }

    /// The shared lease, or `None` after a spill.
    #[inline]
    pub(super) fn lease(&self) -> Option<&Lease> {
        if self.is_heap() {
            return None;
        }
        // SAFETY: an even address is a lease (invariant), and `Lease` is a transparent pointer of
        // the same size.
        Some(unsafe { &*std::ptr::from_ref(&self.0).cast::<Lease>() })
    }

    /// The lease by value if this is its only owner.
    pub(super) fn into_sole_lease(self) -> Result<Lease, SharedStorage> {
        if !self.lease().is_some_and(|lease| lease.header().is_unique()) {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: from `into_raw` (invariant), the only owner, and `this` does not drop it.
        let lease = unsafe { Lease::from_raw(this.0.cast()) };
        lease.header().clear_frozen();
        Ok(lease)
    }
}

impl Clone for SharedStorage {
    #[inline]
    fn clone(&self) -> SharedStorage {
        match self.lease() {
            Some(lease) => lease.header().inc_ref(),
            // SAFETY: this value holds a count of the vector (invariant).
            None => unsafe { Arc::increment_strong_count(self.vector()) },
        }
        SharedStorage(self.0)
    }
}

impl Drop for SharedStorage {
    #[inline]
    fn drop(&mut self) {
        if self.is_heap() {
            // SAFETY: this value's own count of the vector (invariant), given up once.
            unsafe { give_up_vector(self.vector()) };
            return;
        }
        // SAFETY: from `into_raw` (invariant). Dropped below by the last owner only.
        let lease = ManuallyDrop::new(unsafe { Lease::from_raw(self.0.cast()) });
        if lease.header().dec_ref() {
            drop(ManuallyDrop::into_inner(lease));
        }
    }
}

/// Not inlined, so that a drop in the arena stays a handful of instructions.
///
/// # Safety
///
/// The caller owns one count of the vector, and gives it up.
#[inline(never)]
unsafe fn give_up_vector(vector: *const Vec<u8>) {
    // SAFETY: the caller's promise.
    unsafe { Arc::decrement_strong_count(vector) };
}
