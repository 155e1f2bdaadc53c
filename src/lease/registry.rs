//! The arenas of this process by address.
//!
//! `Bytes` hides its owner, so bytes that must be quarantined have only an address to find their
//! slot by. The table is written when an arena is built or given back, and read for a quarantine:
//! no claim and no free comes here.
//!
//! # Safety
//!
//! Unsafe here: saying that the address of a core may move to another thread.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ptr::NonNull;

use crate::sync::Mutex;

/// An arena in the table.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The address of the first byte of the region.
    pub(super) start: usize,
    pub(super) len: usize,
    /// The core, as a plain address: the module `core` uses this one.
    pub(super) core: NonNull<u8>,
}

// SAFETY: an address of the process; nothing is reached through it here.
unsafe impl Send for Entry {}

/// All arenas, by the address of their first byte. The ranges do not overlap, because regions that
/// exist at one time do not.
static ARENAS: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());

/// Adds an arena that has just been built.
pub(super) fn insert(entry: Entry) {
    ARENAS.lock().insert(entry.start, entry);
}

/// Removes the arena whose region begins at `start`, before the region is given back.
pub(super) fn remove(start: usize) {
    ARENAS.lock().remove(&start);
}

/// Returns the arena that `address` lies in, or `None` if no arena holds it.
pub(super) fn find(address: usize) -> Option<Entry> {
    let arenas = ARENAS.lock();
    let (_, entry) = arenas.range(..=address).next_back()?;
    (address - entry.start < entry.len).then_some(*entry)
}
