//! The storage of a buffer or of frozen bytes: a slot, or the heap after a spill.
//!
//! # Safety
//!
//! Unsafe here: packing a lease, or a counted vector, into one tagged pointer of eight bytes, and
//! taking it out again.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use crate::lease::Lease;
use crate::sync::Arc;

/// The tag in the address of a storage on the heap. Headers and vectors are aligned to more than
/// this.
const HEAP: usize = 1;

/// The storage of a [`Buffer`](super::Buffer), which frees it.
///
/// It has no drop of its own: the buffer would look twice whether there is a lease. A storage that
/// is neither kept nor turned into its lease leaks the slot.
///
/// | address | meaning |
/// |---|---|
/// | even | a lease that this value owns |
/// | odd | the head room of a spilled buffer, in the other bits; it points nowhere |
// Invariant: an even address came from `Lease::into_raw`, and this value owns that lease.
pub(super) struct Storage(NonNull<u8>);

// SAFETY: it is a `Lease`, which is Send and Sync, or a number.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    /// Makes the storage of a buffer in the slot of `lease`.
    #[inline]
    pub(super) fn slot(lease: Lease) -> Storage {
        Storage(lease.into_raw().cast())
    }

    /// Makes the storage of a buffer on the heap, `headroom` bytes behind the start of its vector.
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

    /// Returns the lease, or `None` after a spill.
    #[inline]
    pub(super) fn lease(&self) -> Option<&Lease> {
        if self.is_heap() {
            return None;
        }
        // SAFETY: an even address is a lease (invariant), and `Lease` is a transparent pointer of
        // the same size.
        Some(unsafe { &*std::ptr::from_ref(&self.0).cast::<Lease>() })
    }

    /// Returns the lease by value, or the head room of a spilled buffer.
    #[inline]
    pub(super) fn into_lease(self) -> Result<Lease, usize> {
        if self.is_heap() {
            return Err(self.0.addr().get() >> 1);
        }
        // SAFETY: from `into_raw` (invariant), and this value ends here.
        Ok(unsafe { Lease::from_raw(self.0.cast()) })
    }

    /// Moves the storage out of a buffer.
    ///
    /// # Safety
    ///
    /// The buffer ends, or gets another storage, before its own is used again.
    #[inline]
    pub(super) unsafe fn take(&self) -> Storage {
        Storage(self.0)
    }

    /// Returns the head room of a spilled buffer.
    pub(super) fn heap_headroom(&self) -> usize {
        debug_assert!(self.is_heap());
        self.0.addr().get() >> 1
    }
}

/// The storage of an [`ArenaBytes`](super::ArenaBytes): its clones share it.
///
/// | address | meaning |
/// |---|---|
/// | even | a lease, shared by the count in its header |
/// | odd | a counted vector, of which this value holds one count |
// Invariant: an even address came from `Lease::into_raw`, and this value is one of the owners that
// the header counts. An odd one came from `Arc::into_raw`, and this value holds one count.
pub(super) struct SharedStorage(NonNull<u8>);

// SAFETY: a lease and an `Arc<Vec<u8>>` are Send and Sync.
unsafe impl Send for SharedStorage {}
// SAFETY: as above.
unsafe impl Sync for SharedStorage {}

impl SharedStorage {
    /// Makes the only owner of `lease`.
    #[inline]
    pub(super) fn slot(lease: Lease) -> SharedStorage {
        SharedStorage(lease.into_raw().cast())
    }

    /// Makes one more owner of the slot of `lease`.
    #[inline]
    pub(super) fn clone_ref(lease: &Lease) -> SharedStorage {
        lease.header().inc_ref();
        // SAFETY: a copy of the pointer for one more owner, which was counted just now. Only the
        // last owner drops the lease.
        let copy = unsafe { std::ptr::read(lease) };
        SharedStorage(copy.into_raw().cast())
    }

    /// Makes the only owner of `vector`.
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

    /// Returns the shared lease, or `None` after a spill.
    #[inline]
    pub(super) fn lease(&self) -> Option<&Lease> {
        if self.is_heap() {
            return None;
        }
        // SAFETY: an even address is a lease (invariant), and `Lease` is a transparent pointer of
        // the same size.
        Some(unsafe { &*std::ptr::from_ref(&self.0).cast::<Lease>() })
    }

    /// Returns the lease by value if this is its only owner, and the storage itself otherwise.
    pub(super) fn into_unique_lease(self) -> Result<Lease, SharedStorage> {
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
            // SAFETY: this value holds a count of the vector (invariant), and ends it once.
            unsafe { dec_ref_of_vector(self.vector()) };
            return;
        }
        // SAFETY: from `into_raw` (invariant). Dropped below by the last owner only.
        let lease = ManuallyDrop::new(unsafe { Lease::from_raw(self.0.cast()) });
        if lease.header().dec_ref() {
            drop(ManuallyDrop::into_inner(lease));
        }
    }
}

/// Ends one count of a vector. Out of line, so that a drop in the arena stays a handful of
/// instructions.
///
/// # Safety
///
/// The caller holds one count of the vector, and ends it.
#[inline(never)]
unsafe fn dec_ref_of_vector(vector: *const Vec<u8>) {
    // SAFETY: the caller's promise.
    unsafe { Arc::decrement_strong_count(vector) };
}
