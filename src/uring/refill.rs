//! What lies ready for the kernel: slots go into a buffer ring in batches.

use std::ptr::NonNull;

use super::BufferRing;
use crate::lease::{Lease, ZERO};

impl BufferRing {
    /// Publishes as many free slots as there is room for; returns how many lie ready for the kernel
    /// now.
    ///
    /// Slots that other threads freed come home through the arena, so call this once a turn, before
    /// entering the kernel. One store however many there are; nothing at all if the ring is full.
    #[inline]
    pub fn refill(&mut self) -> usize {
        let room = self.shadow.room();
        if room > 0 {
            self.post_up_to(room);
        }
        self.shadow.posted() as usize
    }

    /// As [`refill`](Self::refill), but only when enough places are empty to be worth it: an eighth
    /// of the ring, and at most as many as one claim can fill. A message at a time, a refill would
    /// cost as much as the rest of the turn.
    #[inline]
    pub(crate) fn refill_in_bulk(&mut self) {
        let room = self.shadow.room();
        if room >= self.bulk {
            self.post_up_to(room);
        }
    }

    /// Takes in a slot that was granted to the ring: it goes to the kernel with the next
    /// [`refill`](Self::refill).
    pub(crate) fn add_slot(&mut self, lease: Lease) {
        self.spare.push(lease);
    }

    fn post_up_to(&mut self, room: u32) {
        let BufferRing { arena, entries, shadow, spare, slot_bytes, .. } = self;
        let Some(entries) = entries else { return };
        let (before, slot_bytes) = (shadow.tail(), *slot_bytes);
        let mut post = |lease: Lease, start: NonNull<u8>, slot: u32| {
            let id = slot as u16;
            let position = shadow.post(lease, start, id);
            entries.write(position, start, slot_bytes, id);
        };
        let mut wanted = room as usize;
        while wanted > 0
            && let Some(lease) = spare.pop()
        {
            let (start, slot) = (lease.slot_start(), lease.index());
            post(lease, start, slot);
            wanted -= 1;
        }
        arena.claim_slots(wanted, post);
        let tail = shadow.tail();
        if tail != before {
            entries.publish(tail);
        }
    }

    /// Gives a slot that nothing was handed out of back to the kernel, with the next
    /// [`refill`](Self::refill).
    pub(super) fn recycle(&mut self, lease: Lease) {
        if !lease.header().is_sole() {
            // Earlier messages in the same slot are still held.
            lease.give_up_share();
        } else if lease.header().has(ZERO) {
            // What came in must not be seen by the next owner of the slot: only a free scrubs.
            drop(lease);
        } else {
            self.spare.push(lease);
        }
    }
}
