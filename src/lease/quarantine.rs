//! Counting a lost slot by an address in it: for bytes whose owner is hidden behind `Bytes`.
//!
//! # Safety
//!
//! Unsafe here: reaching the core through a pointer that counts nothing. The slot whose bytes the
//! caller keeps for ever keeps the core live.
#![allow(unsafe_code)]

use super::allocator::Allocator;
use super::core::Core;
use super::registry;
use crate::sync::Ordering;

/// Counts the slot that holds `address` as lost for good, once. Does nothing if `address` lies in
/// no arena.
///
/// # Safety
///
/// The caller owned a share of what `address` lies in, and that share is never given up.
pub(crate) unsafe fn quarantine_at(address: usize) {
    let Some(arena) = registry::find(address) else { return };
    let pointer = arena.core.cast::<Core>();
    // SAFETY: the table names cores that exist, and the share keeps this one live.
    let core = unsafe { pointer.as_ref() };
    let unit = ((address - arena.start) / core.slot_bytes) as u32;
    let slot = match &core.allocator {
        Allocator::Slots(_) => unit,
        Allocator::Blocks(map) => {
            // A block is counted at its first unit.
            // SAFETY: live, and the allocator numbers only units that have headers.
            let header_at = |first| unsafe { Core::header_at(pointer, first) };
            // SAFETY: headers live as long as the core, and are all atomics.
            let order_at = |first| unsafe { header_at(first).as_ref() }.order().into();
            map.block_around(unit, order_at).unwrap_or(unit)
        }
    };
    // SAFETY: live, and the slot exists because it is claimed.
    let header = unsafe { Core::header_at(pointer, slot) };
    // SAFETY: headers live as long as the core, and are all atomics.
    if unsafe { header.as_ref() }.note_quarantine() {
        // Relaxed: a counter.
        core.counters.quarantined.fetch_add(1, Ordering::Relaxed);
    }
}
