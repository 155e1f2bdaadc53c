//! The array that the kernel takes buffers from. The ring's owner alone writes it; the kernel reads
//! it, and rewrites entries for incremental consumption.
//!
//! # Safety
//!
//! Unsafe here: writing entries and the tail through raw pointers, because the kernel reads them
//! meanwhile.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::region::{
    Backing, BuildError, InChildren, PageSize, Region, RegionOptions, system_page_bytes,
};
use crate::sync::{AtomicU16, Ordering};

/// One entry in the kernel's layout (`struct io_uring_buf`).
#[repr(C)]
pub(super) struct RingEntry {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) id: u16,
    /// The ring's tail in entry 0. Unused in every other entry.
    pub(super) tail: u16,
}

/// The entries of one buffer ring, and its tail.
///
/// The array is not freed on drop, because the kernel may still use it: [`free`](Self::free) frees
/// it.
//
// Invariants: 1. `region` holds `mask + 1` entries, a power of two, and is zero where nothing was
// written. 2. Only this value writes the entries and the tail. 3. An entry before the tail that no
// completion has named yet is the kernel's: it is not written.
pub(super) struct RingEntries {
    region: ManuallyDrop<Region>,
    mask: u32,
}

impl RingEntries {
    /// Maps an array of `count` entries, a power of two.
    pub(super) fn new(count: u16) -> Result<RingEntries, BuildError> {
        assert!(count.is_power_of_two());
        let request = RegionOptions {
            backing: Backing::Anonymous,
            page_size: PageSize::Unknown,
            // A forked child must not see the entries. It may write over them all the same.
            in_children: InChildren::Zeroed,
            ..RegionOptions::default()
        };
        // The kernel wants the array to start on a page.
        let alignment = system_page_bytes();
        let region = Region::new(usize::from(count) * size_of::<RingEntry>(), alignment, &request)?;
        Ok(RingEntries { region: ManuallyDrop::new(region), mask: u32::from(count) - 1 })
    }

    /// Returns the address of the array, for registering it.
    pub(super) fn address(&self) -> u64 {
        self.first().addr().get() as u64
    }

    pub(super) fn count(&self) -> u16 {
        (self.mask + 1) as u16
    }

    fn first(&self) -> NonNull<RingEntry> {
        self.region.start().cast()
    }

    /// Writes the whole entry at `position`, because the kernel may have changed the old one.
    ///
    /// The kernel sees the entry after [`publish`](Self::publish). The caller owns
    /// `address..address + bytes` and lets the kernel write there from then on.
    #[inline]
    pub(super) fn write(&mut self, position: u32, address: NonNull<u8>, bytes: u32, id: u16) {
        // SAFETY: masked, so inside the array (invariant 1).
        let entry = unsafe { self.first().add((position & self.mask) as usize) }.as_ptr();
        // SAFETY: inside the array; not the kernel's now (invariant 3, kept by `PostedQueue`, in
        // which this position is empty).
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

    /// Returns the bytes of the entry at `position`, which a completion has named: the kernel may
    /// have made it shorter.
    pub(super) fn bytes_at(&self, position: u32) -> u32 {
        // SAFETY: masked, so inside the array (invariant 1).
        let entry = unsafe { self.first().add((position & self.mask) as usize) }.as_ptr();
        // SAFETY: as above.
        let bytes = unsafe { &raw const (*entry).bytes };
        // SAFETY: valid and aligned. Volatile, because the kernel writes the array too; it is done
        // with this entry.
        unsafe { bytes.read_volatile() }
    }

    /// Hands every entry before `tail` to the kernel, with one store for a whole batch.
    ///
    /// The store is Release and pairs with the kernel's acquire load of the tail
    /// (`io_ring_buffer_select`): the kernel sees the entries written before.
    #[inline]
    pub(super) fn publish(&mut self, tail: u32) {
        // SAFETY: entry 0 is inside the array.
        let field = unsafe { &raw mut (*self.first().as_ptr()).tail };
        // SAFETY: valid and aligned for as long as `self`; all accesses on our side go through this
        // atomic.
        let shared = unsafe { AtomicU16::from_ptr(field) };
        shared.store(tail as u16, Ordering::Release);
    }

    /// Frees the array. The kernel does not use it any more.
    pub(super) fn free(mut self) {
        // SAFETY: not used again: `self` ends here, and it has no `Drop` of its own.
        unsafe { ManuallyDrop::drop(&mut self.region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::fake_page;
    use io_uring::types::BufRingEntry;

    #[test]
    fn the_array_starts_on_a_page_whatever_its_size() {
        for page in [4096, 16384, 65536] {
            fake_page::with(page, || {
                for _ in 0..8 {
                    let entries = RingEntries::new(1).unwrap();
                    assert!(entries.address().is_multiple_of(page as u64));
                    entries.free();
                }
            });
        }
    }

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
