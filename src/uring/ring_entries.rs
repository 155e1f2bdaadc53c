//! The array that the kernel takes buffers from: written by the ring's owner alone, read (and, for
//! incremental consumption, rewritten) by the kernel.
//!
//! # Safety
//!
//! Unsafe here: writing entries and the tail through raw pointers, because the kernel reads them
//! meanwhile.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::region::{Backing, BuildError, PageSize, Region, RegionOptions};
use crate::sync::{AtomicU16, Ordering};

/// One entry, as the kernel lays it out (`struct io_uring_buf`).
#[repr(C)]
pub(super) struct RingEntry {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) id: u16,
    /// In entry 0 this is the ring's tail; elsewhere nothing.
    pub(super) tail: u16,
}

/// The kernel wants the array to start on a page.
const ALIGNMENT: usize = 4096;

/// The entries of one buffer ring, and its tail.
///
/// Invariants: 1. `region` holds `mask + 1` entries, a power of two, and is zero where nothing was
/// written. 2. Only this value writes them and the tail. 3. Entries before the tail and not yet
/// seen in a completion are the kernel's: they are not written.
pub(super) struct RingEntries {
    region: ManuallyDrop<Region>,
    mask: u32,
}

impl RingEntries {
    /// Room for `count` entries, a power of two.
    pub(super) fn new(count: u16) -> Result<RingEntries, BuildError> {
        assert!(count.is_power_of_two());
        let request = RegionOptions {
            backing: Backing::Anonymous,
            page_size: PageSize::Unknown,
            // A child that inherits the ring's descriptor has no business with its entries.
            keep_from_children: true,
            ..RegionOptions::default()
        };
        let region = Region::new(usize::from(count) * size_of::<RingEntry>(), ALIGNMENT, &request)?;
        Ok(RingEntries { region: ManuallyDrop::new(region), mask: u32::from(count) - 1 })
    }

    /// Where the array starts, for registering it.
    pub(super) fn address(&self) -> u64 {
        self.first().addr().get() as u64
    }

    pub(super) fn count(&self) -> u16 {
        (self.mask + 1) as u16
    }

    fn first(&self) -> NonNull<RingEntry> {
        self.region.start().cast()
    }

    /// Writes the whole entry at `position`: the kernel may have changed what was there.
    ///
    /// The kernel sees it after [`publish`](Self::publish). The caller owns
    /// `address..address + bytes` and lets the kernel write there from then on.
    #[inline]
    pub(super) fn write(&mut self, position: u32, address: NonNull<u8>, bytes: u32, id: u16) {
        // SAFETY: masked, so inside the array (invariant 1).
        let entry = unsafe { self.first().add((position & self.mask) as usize) }.as_ptr();
        // SAFETY: inside the array; not the kernel's now (invariant 3, kept by `Shadow`, which has
        // this place empty).
        let to_address = unsafe { &raw mut (*entry).address };
        // SAFETY: as above.
        let to_bytes = unsafe { &raw mut (*entry).bytes };
        // SAFETY: as above. The tail, which shares entry 0, is left alone.
        let to_id = unsafe { &raw mut (*entry).id };
        // SAFETY: valid, aligned, ours to write.
        unsafe { to_address.write(address.addr().get() as u64) };
        // SAFETY: valid, aligned, ours to write.
        unsafe { to_bytes.write(bytes) };
        // SAFETY: valid, aligned, ours to write.
        unsafe { to_id.write(id) };
    }

    /// Hands every entry before `tail` to the kernel: one store for a whole batch.
    ///
    /// Release: pairs with the kernel's acquire load of the tail (`io_ring_buffer_select`): it sees
    /// the entries written before.
    #[inline]
    pub(super) fn publish(&mut self, tail: u32) {
        // SAFETY: entry 0 is inside the array.
        let place = unsafe { &raw mut (*self.first().as_ptr()).tail };
        // SAFETY: valid and aligned for as long as `self`; all accesses on our side go through this
        // atomic.
        let shared = unsafe { AtomicU16::from_ptr(place) };
        shared.store(tail as u16, Ordering::Release);
    }

    /// Gives the memory back: the kernel has let go of it.
    pub(super) fn free(mut self) {
        // SAFETY: not used again: `self` ends here, and it has no `Drop` of its own.
        unsafe { ManuallyDrop::drop(&mut self.region) }
    }
}

// Not freed by a plain drop: without proof that the kernel has let go, the array stays.

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types::BufRingEntry;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_has_it() {
        assert_eq!(size_of::<RingEntry>(), size_of::<BufRingEntry>());
        let mut theirs: [BufRingEntry; 1] = [zeroed_entry()];
        theirs[0].set_addr(0x1122_3344_5566_7788);
        theirs[0].set_len(0x99AA_BBCC);
        theirs[0].set_bid(0xDDEE);
        let ours: &RingEntry = {
            // SAFETY: same size, and every bit pattern is valid in both.
            unsafe { &*theirs.as_ptr().cast() }
        };
        assert_eq!(ours.address, 0x1122_3344_5566_7788);
        assert_eq!(ours.bytes, 0x99AA_BBCC);
        assert_eq!(ours.id, 0xDDEE);
        // SAFETY: the first of an array of one, initialised.
        let tail = unsafe { BufRingEntry::tail(theirs.as_ptr()) };
        assert_eq!(tail.addr() - theirs.as_ptr().addr(), std::mem::offset_of!(RingEntry, tail));
    }

    fn zeroed_entry() -> BufRingEntry {
        // SAFETY: plain integers: all zero is a value.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn writing_entry_zero_leaves_the_tail_alone() {
        let mut entries = RingEntries::new(4).unwrap();
        entries.publish(3);
        entries.write(4, NonNull::dangling(), 7, 9);
        // SAFETY: inside the array, and nobody writes it now.
        let first = unsafe { entries.first().as_ref() };
        assert_eq!((first.tail, first.bytes, first.id), (3, 7, 9));
        entries.free();
    }
}
