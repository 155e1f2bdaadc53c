//! The queue of posted slots, in the order in which they were posted.
//!
//! A completion names the buffer that the kernel filled by an id alone, and the kernel walks on in
//! ring order when it fills several. Ids come back in any order, so the ring's owner keeps this
//! queue. Entry and slot are not coupled: a slot that a user holds leaves no hole here. Its
//! position went to the next slot that was published.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::lease::{Lease, Run, SlotPtr};

/// One entry: a posted slot, or the first of several. Empty once a completion named it.
struct PostedSlot {
    /// The lease of an entry of one slot. That of a longer entry is in `PostedQueue::runs`.
    lease: Option<Lease>,
    /// The start of the slot's bytes, kept so that a completion need not compute it.
    start: SlotPtr,
    /// Bytes of the slot that earlier completions took (incremental consumption). 0 in an empty
    /// slot.
    used: u32,
    id: u16,
}

/// The posted slots of one ring.
///
/// A position counts all posts modulo 2³², and the queue holds those from `head` to `tail`. An
/// entry is one slot, or several that are adjacent. One that is taken out before an older one
/// leaves a hole; `head` skips holes.
//
// Invariants: 1. Positions outside `head..tail` are empty. 2. `tail - head` is at most the number
// of positions. The kernel's own head is never behind ours, so it is never given more than it can
// count. 3. `head == tail`, or the slot at `head` is full. 4. `holes` counts the empty slots in
// `head..tail`. 5. A position has a lease or a run, not both; `more` counts the slots of runs
// beyond the first one of each.
pub(super) struct PostedQueue {
    slots: Box<[PostedSlot]>,
    /// The slots of the entries that have several.
    runs: Box<[Option<Run>]>,
    head: u32,
    tail: u32,
    holes: u32,
    more: u32,
}

impl PostedQueue {
    /// Creates a queue of `count` positions, a power of two.
    pub(super) fn new(count: u32) -> PostedQueue {
        assert!(count.is_power_of_two());
        let slots = (0..count)
            .map(|_| PostedSlot { lease: None, start: SlotPtr::DANGLING, used: 0, id: 0 })
            .collect();
        let runs = (0..count).map(|_| None).collect();
        PostedQueue { slots, runs, head: 0, tail: 0, holes: 0, more: 0 }
    }

    #[inline]
    fn at(&self, position: u32) -> &PostedSlot {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    #[inline]
    fn at_mut(&mut self, position: u32) -> &mut PostedSlot {
        let mask = self.slots.len() - 1;
        &mut self.slots[position as usize & mask]
    }

    /// Returns the number of positions from the oldest posted slot to the tail, holes included.
    #[inline]
    pub(super) fn span(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Returns the number of slots in the queue.
    pub(super) fn len(&self) -> usize {
        (self.span() - self.holes + self.more) as usize
    }

    /// Returns the number of slots in the queue, with one for each hole.
    #[inline]
    pub(super) fn taken(&self) -> u32 {
        self.span() + self.more
    }

    /// Returns whether an entry is posted at a position of the queue.
    fn is_posted(&self, position: u32) -> bool {
        self.at(position).lease.is_some() || self.run_at(position).is_some()
    }

    fn run_at(&self, position: u32) -> Option<&Run> {
        self.runs[position as usize & (self.runs.len() - 1)].as_ref()
    }

    /// Returns the number of entries that can be posted now.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        self.capacity() - self.span()
    }

    /// Returns the number of positions.
    #[inline]
    pub(super) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Counts positions from 0 again. No slot may be posted.
    pub(super) fn restart(&mut self) {
        assert!(self.span() == 0);
        (self.head, self.tail) = (0, 0);
    }

    /// Returns the position of the oldest posted slot.
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Returns the position after the last posted slot, which the kernel knows as the tail.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// Posts a slot. Returns its position.
    #[inline]
    pub(super) fn post(&mut self, lease: Lease, start: NonNull<u8>, id: u16) -> u32 {
        debug_assert!(self.room() > 0);
        let position = self.tail;
        let slot = self.at_mut(position);
        debug_assert!(slot.lease.is_none(), "posted over a slot that the kernel has");
        // The position is empty. Forgetting `None` spares the code of a drop.
        std::mem::forget(slot.lease.replace(lease));
        debug_assert!(slot.used == 0);
        (slot.start, slot.id) = (SlotPtr::new(start), id);
        self.tail = position.wrapping_add(1);
        position
    }

    /// Posts adjacent slots as one entry. Returns its position.
    pub(super) fn post_run(&mut self, run: Run, start: NonNull<u8>, id: u16) -> u32 {
        let run = match run.into_lease() {
            Ok(lease) => return self.post(lease, start, id),
            Err(run) => run,
        };
        debug_assert!(self.room() > 0);
        let position = self.tail;
        debug_assert!(!self.is_posted(position), "posted over slots that the kernel has");
        self.more += run.count() - 1;
        let mask = self.runs.len() - 1;
        self.runs[position as usize & mask] = Some(run);
        let slot = self.at_mut(position);
        debug_assert!(slot.used == 0);
        (slot.start, slot.id) = (SlotPtr::new(start), id);
        self.tail = position.wrapping_add(1);
        position
    }

    /// Takes the slot that was posted first, if it has this id and is an entry of its own. That is
    /// so in the common case, in which completions come in order.
    #[inline]
    pub(super) fn take_first(&mut self, id: u16) -> Option<(Lease, NonNull<u8>)> {
        let head = self.head;
        let slot = self.at_mut(head);
        if slot.id != id {
            return None;
        }
        // Not to be dropped on the way: so the compiler keeps it in a register.
        let lease = ManuallyDrop::new(slot.lease.take()?);
        let start = slot.start.get();
        self.advance_head();
        Some((ManuallyDrop::into_inner(lease), start))
    }

    /// Moves the head on from its position, which is empty now.
    #[inline]
    fn advance_head(&mut self) {
        self.head = self.head.wrapping_add(1);
        if self.holes > 0 {
            self.skip_holes();
        }
    }

    #[cold]
    fn skip_holes(&mut self) {
        while self.holes > 0 && !self.is_posted(self.head) {
            self.holes -= 1;
            self.head = self.head.wrapping_add(1);
        }
    }

    /// Returns the position of the slot with this id. Returns `None` if no such slot is posted:
    /// then the completion is not one of this ring's.
    #[inline]
    pub(super) fn find(&self, id: u16) -> Option<u32> {
        let first = self.at(self.head);
        if first.id == id && first.lease.is_some() {
            return Some(self.head);
        }
        self.search(id)
    }

    /// Searches all positions. Completions may overtake each other if worker threads of the kernel
    /// received them.
    #[cold]
    fn search(&self, id: u16) -> Option<u32> {
        (0..self.span())
            .map(|step| self.head.wrapping_add(step))
            .find(|&position| self.at(position).id == id && self.is_posted(position))
    }

    /// Returns the entry at `position`. Returns `None` if none is posted there (any more).
    #[inline]
    pub(super) fn peek(&self, position: u32) -> Option<PostedEntry> {
        if position.wrapping_sub(self.head) >= self.span() {
            return None;
        }
        let slot = self.at(position);
        let slots = match slot.lease {
            Some(_) => 1,
            None => self.run_at(position)?.count(),
        };
        Some(PostedEntry { start: slot.start.get(), used: slot.used, slots })
    }

    /// Returns the lease of the entry at `position`, which has one slot.
    pub(super) fn lease_at(&self, position: u32) -> Option<&Lease> {
        self.at(position).lease.as_ref()
    }

    /// Records that all of the entry at `position` may have been written.
    #[inline]
    pub(super) fn record_written(&self, position: u32, slot_bytes: usize) {
        match &self.at(position).lease {
            Some(lease) => lease.record_written(slot_bytes),
            None => {
                if let Some(run) = self.run_at(position) {
                    run.record_written_whole(slot_bytes);
                }
            }
        }
    }

    /// Adds to the used bytes of the slot at `position`.
    #[inline]
    pub(super) fn add_used(&mut self, position: u32, bytes: u32) {
        self.at_mut(position).used += bytes;
    }

    /// Takes the slots of the entry at `position` out. The position can be posted to again once
    /// every older entry is taken.
    #[inline]
    pub(super) fn take(&mut self, position: u32) -> Option<Run> {
        if position.wrapping_sub(self.head) >= self.span() {
            return None;
        }
        let slot = self.at_mut(position);
        slot.used = 0;
        let run = match slot.lease.take() {
            Some(lease) => Run::from_lease(lease),
            None => self.take_run(position)?,
        };
        if position == self.head {
            self.advance_head();
        } else {
            self.holes += 1;
        }
        Some(run)
    }

    fn take_run(&mut self, position: u32) -> Option<Run> {
        let mask = self.runs.len() - 1;
        let run = self.runs[position as usize & mask].take()?;
        self.more -= run.count() - 1;
        Some(run)
    }

    /// Takes every slot out, oldest first.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Run)) {
        while self.head != self.tail {
            let head = self.head;
            let slot = self.at_mut(head);
            slot.used = 0;
            let run = slot.lease.take().map(Run::from_lease).or_else(|| self.take_run(head));
            self.head = head.wrapping_add(1);
            if let Some(run) = run {
                each(run);
            }
        }
        self.holes = 0;
    }

    /// Returns the ids of the slots in the queue.
    pub(super) fn ids(&self) -> impl Iterator<Item = u16> {
        (0..self.span()).flat_map(move |step| {
            let position = self.head.wrapping_add(step);
            let slots = self.peek(position).map_or(0, |entry| entry.slots as u16);
            (0..slots).map(move |slot| self.at(position).id + slot)
        })
    }
}

/// A posted entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostedEntry {
    pub(super) start: NonNull<u8>,
    /// The bytes that earlier completions took.
    pub(super) used: u32,
    /// The number of adjacent slots.
    pub(super) slots: u32,
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

    fn post(queue: &mut PostedQueue, arena: &FixedArena) -> u16 {
        let (lease, start) = arena.handle().claim_slot(crate::lease::Place::here()).unwrap();
        let id = lease.index() as u16;
        queue.post(lease, start, id);
        id
    }

    #[test]
    fn a_completion_that_overtakes_leaves_a_hole_that_is_not_posted_over() {
        let arena = arena(4);
        let mut queue = PostedQueue::new(2);
        let (first, second) = (post(&mut queue, &arena), post(&mut queue, &arena));
        let overtaking = queue.find(second).unwrap();
        drop(queue.take(overtaking));
        assert_eq!((queue.room(), queue.len()), (0, 1));
        assert_eq!(queue.find(second), None);
        let late = queue.find(first).unwrap();
        drop(queue.take(late));
        assert_eq!((queue.room(), queue.len()), (2, 0));
    }

    #[test]
    fn positions_wrap_without_losing_a_slot() {
        let arena = arena(4);
        let mut queue = PostedQueue::new(4);
        queue.head = u32::MAX - 1;
        queue.tail = u32::MAX - 1;
        let ids: Vec<u16> = (0..4).map(|_| post(&mut queue, &arena)).collect();
        for id in ids {
            let position = queue.find(id).unwrap();
            assert!(queue.peek(position).is_some());
            drop(queue.take(position));
        }
        assert_eq!(queue.span(), 0);
        assert_eq!(arena.metrics().bytes_live, 0);
    }

    #[test]
    fn an_id_that_was_not_posted_is_not_found() {
        let arena = arena(2);
        let mut queue = PostedQueue::new(2);
        assert_eq!(queue.find(0), None);
        let id = post(&mut queue, &arena);
        assert_eq!(queue.find(id + 1), None);
        queue.drain(drop);
    }
}
