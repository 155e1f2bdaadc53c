//! Where a slot's bytes begin, kept beside its lease by whoever needs it again and again.
//!
//! # Safety
//!
//! Unsafe here: saying that an address may go to another thread.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// The address of a slot's first byte. Only an address: what may be done with it, the lease beside
/// it says.
#[derive(Clone, Copy)]
pub(crate) struct SlotPtr(NonNull<u8>);

// SAFETY: memory of the process, with no tie to a thread; nothing is read or written through a
// `SlotPtr` without a lease, and leases are Send and Sync.
unsafe impl Send for SlotPtr {}
// SAFETY: as above.
unsafe impl Sync for SlotPtr {}

impl SlotPtr {
    /// Of no slot.
    pub(crate) const NOWHERE: SlotPtr = SlotPtr(NonNull::dangling());

    #[inline]
    pub(crate) fn new(first_byte: NonNull<u8>) -> SlotPtr {
        SlotPtr(first_byte)
    }

    #[inline]
    pub(crate) fn first_byte(self) -> NonNull<u8> {
        self.0
    }
}
