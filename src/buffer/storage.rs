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

use crate::lease::{CopyCharge, Header, Lease, Run};
use crate::sync::Arc;

/// The tag in the address of a storage on the heap. Headers and vectors are aligned to more than
/// the tags.
const HEAP: usize = 1;

/// The tag in the address of a storage of several slots.
const RUN: usize = 2;

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
/// | divisible by 4 | a lease, shared by the count in its header |
/// | even | a run of adjacent slots, shared by the count in its first header |
/// | odd | a counted vector, of which this value holds one count |
// Invariant: an even address came from `Lease::into_raw`, or with the tag from `Run::into_raw`, and
// this value is one of the owners that the header counts. An odd one came from `Arc::into_raw`, and
// this value holds one count.
pub(super) struct SharedStorage(NonNull<u8>);

/// A vector on the heap, with what it counts against an arena.
struct HeapBytes {
    _vector: Vec<u8>,
    /// The count of a copy of received bytes.
    _charge: Option<CopyCharge>,
}

// SAFETY: a lease, a run and an `Arc<HeapBytes>` are Send and Sync.
unsafe impl Send for SharedStorage {}
// SAFETY: as above.
unsafe impl Sync for SharedStorage {}

impl SharedStorage {
    /// Makes the only owner of `lease`.
    #[inline]
    pub(super) fn slot(lease: Lease) -> SharedStorage {
        SharedStorage(lease.into_raw().cast())
    }

    /// Makes the only owner of `run`.
    pub(super) fn run(run: Run) -> SharedStorage {
        match run.into_lease() {
            Ok(lease) => SharedStorage::slot(lease),
            Err(run) => {
                let first = run.into_raw().cast::<u8>();
                SharedStorage(first.map_addr(|address| address | RUN))
            }
        }
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

    /// Makes the only owner of `vector`, with what it counts against an arena.
    pub(super) fn heap(vector: Vec<u8>, charge: Option<CopyCharge>) -> SharedStorage {
        let heap = HeapBytes { _vector: vector, _charge: charge };
        let raw = Arc::into_raw(Arc::new(heap)).cast::<u8>().cast_mut();
        let raw = NonNull::new(raw).expect("an Arc is never null");
        SharedStorage(raw.map_addr(|address| address | HEAP))
    }

    #[inline]
    fn is_heap(&self) -> bool {
        self.0.addr().get() & HEAP != 0
    }

    /// Returns whether this is one slot: neither on the heap nor several.
    #[inline]
    fn is_slot(&self) -> bool {
        self.0.addr().get() & (HEAP | RUN) == 0
    }

    /// Returns the shared run, to look at, if the storage is several slots.
    pub(super) fn as_run(&self) -> Option<ManuallyDrop<Run>> {
        if self.0.addr().get() & (HEAP | RUN) != RUN {
            return None;
        }
        let first = self.0.map_addr(|address| {
            NonZeroUsize::new(address.get() & !RUN).expect("a header is never at 0")
        });
        // SAFETY: from `Run::into_raw` (invariant), and not dropped through this value.
        Some(ManuallyDrop::new(unsafe { Run::from_raw(first.cast()) }))
    }

    fn vector(&self) -> *const HeapBytes {
        debug_assert!(self.is_heap());
        self.0.as_ptr().map_addr(|address| address & !HEAP).cast()
    }

    /// Returns the shared lease. Returns `None` after a spill, and if the storage is several slots.
    #[inline]
    pub(super) fn lease(&self) -> Option<&Lease> {
        if !self.is_slot() {
            return None;
        }
        // SAFETY: an address without a tag is a lease (invariant), and `Lease` is a transparent
        // pointer of the same size.
        Some(unsafe { &*std::ptr::from_ref(&self.0).cast::<Lease>() })
    }

    /// Adds an owner of several slots, or of a vector. Out of line, so that a clone of one slot
    /// stays a handful of instructions.
    #[inline(never)]
    fn inc_ref_of_tagged(&self) {
        match self.as_run() {
            // The owners of several slots are counted in the header of the first, as those of one.
            Some(run) => run.lease(0).header().inc_ref(),
            // SAFETY: this value holds a count of the vector (invariant).
            None => unsafe { Arc::increment_strong_count(self.vector()) },
        }
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
        if self.is_slot() {
            // SAFETY: the header of a slot that this value is an owner of (invariant).
            unsafe { self.0.cast::<Header>().as_ref() }.inc_ref();
        } else {
            self.inc_ref_of_tagged();
        }
        SharedStorage(self.0)
    }
}

impl Drop for SharedStorage {
    #[inline]
    fn drop(&mut self) {
        if !self.is_slot() {
            // SAFETY: this value is one of the owners (invariant), and ends here.
            unsafe { dec_ref_of_tagged(self.0) };
            return;
        }
        // SAFETY: from `into_raw` (invariant). Dropped below by the last owner only.
        let lease = ManuallyDrop::new(unsafe { Lease::from_raw(self.0.cast()) });
        if lease.header().dec_ref() {
            drop(ManuallyDrop::into_inner(lease));
        }
    }
}

/// Removes an owner of several slots, or of a vector; the last one frees them. Out of line, so that
/// a drop of one slot stays a handful of instructions.
///
/// # Safety
///
/// `address` is that of a storage with a tag, which ends here.
#[inline(never)]
unsafe fn dec_ref_of_tagged(address: NonNull<u8>) {
    let storage = ManuallyDrop::new(SharedStorage(address));
    match storage.as_run() {
        Some(run) if run.lease(0).header().dec_ref() => drop(ManuallyDrop::into_inner(run)),
        Some(_) => {}
        // SAFETY: the storage holds a count of the vector, and ends it once (the caller's promise).
        None => unsafe { Arc::decrement_strong_count(storage.vector()) },
    }
}
