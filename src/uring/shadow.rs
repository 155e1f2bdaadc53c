//! What was posted, in the order in which it was posted.
//!
//! The kernel tells which buffer it filled by an id alone, and walks on in ring order when it fills
//! several. Ids come back in no useful order, so the owner keeps this copy. The entry and the slot
//! are not coupled: a slot that a user holds leaves no hole here, its place went to the next slot
//! that was published.

use std::ptr::NonNull;

use crate::lease::{Lease, SlotPtr};

/// One posted slot. Empty once its completion was seen.
struct Place {
    lease: Option<Lease>,
    /// Where the slot's bytes begin: kept, so that a completion need not work it out.
    start: SlotPtr,
    /// Bytes of the slot that earlier completions took (incremental consumption); 0 in an empty
    /// place.
    used: u32,
    id: u16,
}

/// The posted slots of one ring.
///
/// Invariants: 1. places outside `head..tail` are empty. 2. `tail - head` is at most the number of
/// places: so the kernel, whose own head is never behind ours, is never given more than it can
/// count. 3. `head == tail`, or the place at `head` is full.
/// 4. `overtaken` counts the empty places in `head..tail`.
pub(super) struct Shadow {
    places: Box<[Place]>,
    head: u32,
    tail: u32,
    overtaken: u32,
}

impl Shadow {
    /// A queue of `count` places, a power of two.
    pub(super) fn new(count: u32) -> Shadow {
        assert!(count.is_power_of_two());
        let places = (0..count)
            .map(|_| Place { lease: None, start: SlotPtr::DANGLING, used: 0, id: 0 })
            .collect();
        Shadow { places, head: 0, tail: 0, overtaken: 0 }
    }

    #[inline]
    fn at(&self, position: u32) -> &Place {
        &self.places[position as usize & (self.places.len() - 1)]
    }

    #[inline]
    fn at_mut(&mut self, position: u32) -> &mut Place {
        let mask = self.places.len() - 1;
        &mut self.places[position as usize & mask]
    }

    /// Places between the oldest posted slot and the next to be posted.
    #[inline]
    pub(super) fn posted(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Places that can be posted to now.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        self.places.len() as u32 - self.posted()
    }

    /// The position of the oldest posted slot.
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// The position after the last posted one: what the kernel knows as the tail.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// Posts a slot; returns its position.
    #[inline]
    pub(super) fn post(&mut self, lease: Lease, start: NonNull<u8>, id: u16) -> u32 {
        debug_assert!(self.room() > 0);
        let position = self.tail;
        let place = self.at_mut(position);
        debug_assert!(place.lease.is_none(), "posted over a slot that the kernel has");
        // Empty, so nothing is dropped: forgotten, so that no code is spent on it.
        std::mem::forget(place.lease.replace(lease));
        debug_assert!(place.used == 0);
        (place.start, place.id) = (SlotPtr::new(start), id);
        self.tail = position.wrapping_add(1);
        position
    }

    /// Takes the slot that was posted first, if it has this id: the common case, a completion that
    /// overtook none.
    #[inline]
    pub(super) fn take_first(&mut self, id: u16) -> Option<(Lease, NonNull<u8>)> {
        let head = self.head;
        let place = self.at_mut(head);
        if place.id != id {
            return None;
        }
        let lease = place.lease.take()?;
        let start = place.start.get();
        self.leave_head();
        Some((lease, start))
    }

    /// Goes on from the place at the head, which is empty now.
    #[inline]
    fn leave_head(&mut self) {
        self.head = self.head.wrapping_add(1);
        if self.overtaken > 0 {
            self.pass_overtaken();
        }
    }

    #[cold]
    fn pass_overtaken(&mut self) {
        while self.overtaken > 0 && self.at(self.head).lease.is_none() {
            self.overtaken -= 1;
            self.head = self.head.wrapping_add(1);
        }
    }

    /// Where the slot with this id was posted. `None`: it was not, so the completion is not one of
    /// this ring's.
    #[inline]
    pub(super) fn find(&self, id: u16) -> Option<u32> {
        let first = self.at(self.head);
        if first.id == id && first.lease.is_some() {
            return Some(self.head);
        }
        self.search(id)
    }

    /// Completions may overtake each other when a worker thread of the kernel received them.
    #[cold]
    fn search(&self, id: u16) -> Option<u32> {
        (1..self.posted())
            .map(|step| self.head.wrapping_add(step))
            .find(|&position| self.at(position).id == id && self.at(position).lease.is_some())
    }

    /// The slot at `position` and how much of it was used before; `None` if nothing is posted there
    /// (any more).
    #[inline]
    pub(super) fn peek(&self, position: u32) -> Option<(&Lease, NonNull<u8>, u32)> {
        if position.wrapping_sub(self.head) >= self.posted() {
            return None;
        }
        let place = self.at(position);
        Some((place.lease.as_ref()?, place.start.get(), place.used))
    }

    /// Notes that `bytes` more of the slot at `position` are used.
    #[inline]
    pub(super) fn note_used(&mut self, position: u32, bytes: u32) {
        self.at_mut(position).used += bytes;
    }

    /// Takes the slot at `position` out; its place can be posted to again once every older one is
    /// taken.
    #[inline]
    pub(super) fn take(&mut self, position: u32) -> Option<Lease> {
        if position.wrapping_sub(self.head) >= self.posted() {
            return None;
        }
        let place = self.at_mut(position);
        let lease = place.lease.take()?;
        place.used = 0;
        if position == self.head {
            self.leave_head();
        } else {
            self.overtaken += 1;
        }
        Some(lease)
    }

    /// Takes everything out, oldest first.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Lease)) {
        while self.head != self.tail {
            let head = self.head;
            let place = self.at_mut(head);
            place.used = 0;
            if let Some(lease) = place.lease.take() {
                each(lease);
            }
            self.head = head.wrapping_add(1);
        }
        self.overtaken = 0;
    }

    /// The ids of the slots posted and not taken.
    pub(super) fn ids(&self) -> impl Iterator<Item = u16> {
        let positions = (0..self.posted()).map(|step| self.at(self.head.wrapping_add(step)));
        positions.filter(|place| place.lease.is_some()).map(|place| place.id)
    }

    /// Slots posted and not taken.
    pub(super) fn count(&self) -> usize {
        (self.posted() - self.overtaken) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::FixedArena;

    fn arena(slots: usize) -> FixedArena {
        let nz = |n| NonZeroUsize::new(n).unwrap();
        FixedArena::with_slot_capacity(nz(slots), nz(64)).build().unwrap()
    }

    fn post(shadow: &mut Shadow, arena: &FixedArena) -> u16 {
        let (lease, start) = arena.handle().claim_slot().unwrap();
        let id = lease.index() as u16;
        shadow.post(lease, start, id);
        id
    }

    #[test]
    fn a_completion_that_overtakes_leaves_a_place_that_is_not_posted_over() {
        let arena = arena(4);
        let mut shadow = Shadow::new(2);
        let (first, second) = (post(&mut shadow, &arena), post(&mut shadow, &arena));
        let overtaking = shadow.find(second).unwrap();
        drop(shadow.take(overtaking));
        assert_eq!((shadow.room(), shadow.count()), (0, 1));
        assert_eq!(shadow.find(second), None);
        let late = shadow.find(first).unwrap();
        drop(shadow.take(late));
        assert_eq!((shadow.room(), shadow.count()), (2, 0));
    }

    #[test]
    fn positions_wrap_without_losing_a_slot() {
        let arena = arena(4);
        let mut shadow = Shadow::new(4);
        shadow.head = u32::MAX - 1;
        shadow.tail = u32::MAX - 1;
        let ids: Vec<u16> = (0..4).map(|_| post(&mut shadow, &arena)).collect();
        for id in ids {
            let position = shadow.find(id).unwrap();
            assert!(shadow.peek(position).is_some());
            drop(shadow.take(position));
        }
        assert_eq!(shadow.posted(), 0);
        assert_eq!(arena.metrics().bytes_live, 0);
    }

    #[test]
    fn an_id_that_was_not_posted_is_not_found() {
        let arena = arena(2);
        let mut shadow = Shadow::new(2);
        assert_eq!(shadow.find(0), None);
        let id = post(&mut shadow, &arena);
        assert_eq!(shadow.find(id + 1), None);
        shadow.drain(drop);
    }
}
