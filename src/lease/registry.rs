//! The arenas of this process, by address.
//!
//! `Bytes` hides its owner: bytes that must be quarantined have only an address to find their slot
//! by. The table is written when an arena is built or ends. It is read for a quarantine, and to
//! upgrade a weak handle. No claim and no free comes here.
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
    /// The number of bytes in the region.
    pub(super) len: usize,
    /// The core, as a plain address: the module `core` uses this one.
    pub(super) core: NonNull<u8>,
}

// SAFETY: an address of the process; nothing is reached through it here.
unsafe impl Send for Entry {}

/// All arenas, by the address of their first byte. The ranges do not overlap, because regions that
/// exist at one time do not.
static ARENAS: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());

/// Adds an arena that was just built, whose region begins at `start`.
pub(super) fn insert(start: usize, entry: Entry) {
    ARENAS.lock().insert(start, entry);
}

/// Removes the arena whose region begins at `start`, before the region is given back.
pub(super) fn remove(start: usize) {
    ARENAS.lock().remove(&start);
}

/// Returns the answer of `ask`, given the core of the arena whose region begins at `start`, or
/// `None` if there is no such arena. The arena does not end meanwhile.
#[cfg(feature = "async-alloc")]
pub(super) fn ask_arena_at<T>(
    start: usize,
    ask: impl FnOnce(NonNull<u8>) -> Option<T>,
) -> Option<T> {
    ARENAS.lock().get(&start).and_then(|entry| ask(entry.core))
}

/// Finds the arena that `address` lies in. Returns its core and the offset of `address` in its
/// region.
pub(super) fn find(address: usize) -> Option<(NonNull<u8>, usize)> {
    let arenas = ARENAS.lock();
    let (start, entry) = arenas.range(..=address).next_back()?;
    (address - start < entry.len).then_some((entry.core, address - start))
}
