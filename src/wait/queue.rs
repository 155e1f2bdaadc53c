//! A fair queue: waiters in order of arrival, and the slots that were granted to them.
//!
//! ```text
//!            waiting           granted
//! order 0    7  8  11  …       5 → slot 3     waiter 5 was granted slot 3, and woken
//! order 1    9  10             –              one queue for each order of blocks; a fixed
//!                                             arena has order 0 only
//! ```
//!
//! | state of a waiter | changes                                                               |
//! |-------------------|-----------------------------------------------------------------------|
//! | waiting           | → granted when memory is released and nobody of its order came before |
//! | granted           | → gone when it polls and takes its slot                               |
//! | both              | → gone when it leaves; its slot is released to the others             |
//!
//! The queue is plain data. [`Waiters`](super::Waiters) holds it behind a lock.

use std::collections::VecDeque;
use std::ops::Range;
use std::task::{Poll, Waker};

use super::reservation::{BYPASS_MAX, FreeParts, ORDERS_WITHOUT, Reservation};
use super::wakes::WakeList;
use crate::slots::{Allocator, FreeOutcome};

/// The number of words of the allocator that one free in vain pays for. Setting and clearing the
/// `WAITERS` flags of so many words costs about a tenth of what such a free costs.
const WORDS_PER_IDLE_FREE: usize = 4;

/// A queue of waiters, with a queue for each order of blocks.
// Invariants:
// 1. A waiter is in `waiting` or in `granted` of its order, never in both; both are sorted by
//    ticket.
// 2. A slot in `granted` is claimed in the allocator and has no lease.
// 3. While somebody is waiting, `waiters_flag_set` is true.
// 4. Between two visits no block is free that serves a waiter, but for what was free before the
//    waiter joined: that the waiter looks for itself.
pub(super) struct WaitQueue {
    /// Every word of the allocator has its `WAITERS` flag.
    waiters_flag_set: bool,
    /// The flags are never cleared: a callback hears of every free.
    keeps_flags: bool,
    /// The number of frees that found nobody waiting, since a waiter joined last.
    idle_frees: usize,
    reservation: Option<Reservation>,
    /// The ticket of the waiter for which memory is reserved next, and the number of frees that
    /// have bypassed it.
    bypassed: (u64, u32),
    /// The tickets of the waiters whose turn comes before the oldest's: those behind the one whose
    /// reservation was given up last, and before those that joined since the first was given up.
    turns: Range<u64>,
    next_ticket: u64,
    orders: Box<[OrderQueue]>,
}

/// The waiters for blocks of one order.
#[derive(Default)]
struct OrderQueue {
    waiting: VecDeque<Waiter>,
    /// Tickets, and the slots that were granted to them.
    granted: VecDeque<(u64, u32)>,
}

struct Waiter {
    ticket: u64,
    waker: Option<Waker>,
}

/// The identity of a waiter. Tickets count the arrivals: 2⁶⁴ of them do not run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaiterId {
    pub(crate) order: u32,
    ticket: u64,
}

/// A callback that records the order of a block beside the block, when the block is granted.
pub(super) type RecordOrder<'a> = &'a dyn Fn(u32, u32);

/// One visit to the queue, under its lock, and what follows when the lock is released.
pub(super) struct Visit<'a> {
    pub(super) allocator: &'a Allocator,
    pub(super) record_order: RecordOrder<'a>,
    /// The wakers of the waiters that were granted memory, to be called, and those of waiters that
    /// left, to be dropped.
    pub(super) wakers: WakeList,
    /// A callback of the user's hears of memory that is left for others.
    pub(super) has_callback: bool,
    /// The orders of the blocks that became free, and of which a part is left.
    pub(super) left: Vec<u32>,
}

/// The answer to a waiter that polls.
pub(super) enum Polled {
    /// The slot that was granted.
    Granted(u32),
    /// Nothing was granted yet, and the waker is kept.
    Waits,
    /// Nothing was granted yet, and the waker is not the one that is kept.
    NeedsWaker,
}

impl WaitQueue {
    /// Makes an empty queue.
    pub(super) fn new(allocator: &Allocator) -> WaitQueue {
        WaitQueue {
            waiters_flag_set: false,
            keeps_flags: false,
            idle_frees: 0,
            reservation: None,
            bypassed: (0, 0),
            turns: 0..0,
            next_ticket: 0,
            orders: (0..allocator.order_count()).map(|_| OrderQueue::default()).collect(),
        }
    }

    /// Sets the `WAITERS` flags of the allocator for ever.
    pub(super) fn keep_flags(&mut self, allocator: &Allocator) {
        self.set_flags(allocator);
        self.keeps_flags = true;
    }

    /// Sets the `WAITERS` flags of the allocator until frees have paid for it and nobody waits.
    pub(super) fn set_flags(&mut self, allocator: &Allocator) {
        if !self.waiters_flag_set {
            // Under the lock: whoever finds `waiters_flag_set` must find the flags set.
            allocator.set_waiters_flags();
            self.waiters_flag_set = true;
        }
    }

    /// Adds a waiter behind all others of its order.
    pub(super) fn join(&mut self, allocator: &Allocator, order: u32) -> WaiterId {
        self.set_flags(allocator);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.idle_frees = 0;
        self.of_order(order).waiting.push_back(Waiter { ticket, waker: None });
        WaiterId { order, ticket }
    }

    /// Takes the slot that was granted to `id`, or tells whether `waker` is the one to be called.
    pub(super) fn poll(&mut self, id: WaiterId, waker: &Waker) -> Polled {
        let queue = self.of_order(id.order);
        if let Some(slot) = queue.take_granted(id.ticket) {
            return Polled::Granted(slot);
        }
        let kept = &queue.waiting_mut(id.ticket).waker;
        match kept {
            Some(kept) if kept.will_wake(waker) => Polled::Waits,
            _ => Polled::NeedsWaker,
        }
    }

    /// Takes the slot that was granted to `id`, or keeps `waker` to be called when one is.
    ///
    /// Also returns the waker that is not needed. The caller drops it outside of the lock.
    pub(super) fn poll_with(&mut self, id: WaiterId, waker: Waker) -> (Poll<u32>, Option<Waker>) {
        let queue = self.of_order(id.order);
        match queue.take_granted(id.ticket) {
            Some(slot) => (Poll::Ready(slot), Some(waker)),
            None => (Poll::Pending, queue.waiting_mut(id.ticket).waker.replace(waker)),
        }
    }

    /// Removes a waiter. Memory that was granted to it, or reserved for it, goes to the others.
    pub(super) fn leave(&mut self, id: WaiterId, visit: &mut Visit) {
        let queue = self.of_order(id.order);
        let granted = queue.take_granted(id.ticket);
        if granted.is_none() {
            let waiter = queue.find(id.ticket).and_then(|index| queue.waiting.remove(index));
            visit.wakers.push_unneeded(waiter.and_then(|waiter| waiter.waker));
        }
        self.end_unneeded_reservation(visit);
        if let Some(first) = granted {
            self.release(first, id.order, visit);
        }
    }

    /// Gives a claimed slot, or a block of `order`, to the waiters, or frees it.
    pub(super) fn release(&mut self, first: u32, order: u32, visit: &mut Visit) {
        if self.is_nobody_waiting() {
            visit.free(&[(first, order)]);
            visit.leave_for_others(order);
            self.record_idle_free(visit.allocator);
        } else if visit.allocator.has_slots() {
            // Without a visit to the bitmap, where a newcomer could claim the slot.
            self.grant(0, first, visit);
        } else {
            self.release_block(first, order, visit);
        }
    }

    /// Adds a block to the reservation, or frees it. A free block merges with its neighbours, and
    /// then serves every waiter that it can.
    fn release_block(&mut self, first: u32, order: u32, visit: &mut Visit) {
        let min_blocks = 1 << visit.allocator.blocks().max_order();
        match &mut self.reservation {
            Some(reservation) if reservation.covers(first, order) => {
                reservation.add(first, order);
                self.use_reservation(visit);
            }
            _ => {
                visit.free(&[(first, order)]);
                self.serve_around(first, order, visit);
                self.record_bypass(first);
            }
        }
        let overdue = self.reservation.take_if(|it| it.record_free(first) > min_blocks);
        if let Some(reservation) = overdue {
            let behind = reservation.ticket + 1;
            let has_turn = self.turns.contains(&reservation.ticket);
            self.turns = behind..if has_turn { self.turns.end } else { self.next_ticket };
            self.give_up(reservation, visit);
        }
    }

    /// Serves the waiters for which the free of the block at `first` made room, the oldest first.
    ///
    /// Only blocks around the one that was freed can serve somebody now (invariant 4), so nothing
    /// is searched, unless another thread has claimed a part of them meanwhile.
    fn serve_around(&mut self, first: u32, order: u32, visit: &mut Visit) {
        let buddy = visit.allocator.blocks();
        let limit = self.largest_order_waited_for();
        let around = limit.map_or(order, |limit| buddy.order_around(first, order, limit));
        let mut parts = FreeParts::of_block(first, around);
        let mut left = 1u64 << order;
        let mut below = u32::MAX;
        while let Some(largest) = parts.largest()
            && let Some(wanted) = self.oldest_order(below.min(largest + 1))
        {
            let place = parts.tightest(wanted);
            let claimed = if buddy.claim_at(place, wanted) {
                parts.take(wanted);
                Some(place)
            } else {
                buddy.claim_still(wanted)
            };
            let Some(claimed) = claimed else {
                // An allocator that cannot serve one order can serve no larger one.
                below = wanted;
                continue;
            };
            left = left.saturating_sub(1 << wanted);
            self.grant(wanted, claimed, visit);
        }
        if left > 0 {
            visit.leave_for_others(order);
        }
        self.end_unneeded_reservation(visit);
    }

    /// Serves the waiter of the reservation if all of its range is reserved or free. Otherwise
    /// lends a block to a waiter that could use one, if the last free was withheld from it too.
    fn use_reservation(&mut self, visit: &mut Visit) {
        let buddy = visit.allocator.blocks();
        let Some(reservation) = &mut self.reservation else { return };
        let (range, order) = (reservation.first, reservation.order);
        if buddy.live_min_blocks_in(range, order) == reservation.min_blocks_in(range, order) {
            let blocks = reservation.take_blocks_in(range, order);
            visit.free(&blocks);
            if buddy.claim_at(range, order) {
                self.reservation = None;
                self.grant(order, range, visit);
            } else {
                // A newcomer was faster: its block comes back to the reservation.
                self.serve_around_all(&blocks, visit);
            }
            return;
        }
        let Some((range, wanted, is_older)) = self.find_borrower(visit.allocator) else {
            if visit.has_callback {
                self.withhold_from_others(visit);
            }
            return;
        };
        let Some(reservation) = &mut self.reservation else { return };
        if is_older || reservation.is_withheld_twice() {
            self.lend(range, wanted, visit);
        }
    }

    /// Finds the oldest waiter that the reserved memory could serve: the block for it, the order,
    /// and whether it came before the waiter of the reservation.
    fn find_borrower(&self, allocator: &Allocator) -> Option<(u32, u32, bool)> {
        let (buddy, reservation) = (allocator.blocks(), self.reservation.as_ref()?);
        let mut below = reservation.order;
        loop {
            let wanted = self.oldest_order(below)?;
            let is_whole = |first| {
                buddy.live_min_blocks_in(first, wanted) == reservation.min_blocks_in(first, wanted)
            };
            if let Some(first) = reservation.find(wanted, is_whole) {
                let ticket = self.orders[wanted as usize].waiting[0].ticket;
                return Some((first, wanted, ticket < reservation.ticket));
            }
            below = wanted;
        }
    }

    /// Grants the block of `wanted` at `first`, which is reserved as a whole, to the oldest waiter
    /// of that order. What is left of a larger block stays reserved.
    fn lend(&mut self, first: u32, wanted: u32, visit: &mut Visit) {
        let buddy = visit.allocator.blocks();
        let Some(reservation) = &mut self.reservation else { return };
        let blocks = reservation.take_blocks_in(first, wanted);
        visit.free(&blocks);
        if !buddy.claim_at(first, wanted) {
            // A newcomer was faster.
            return self.serve_around_all(&blocks, visit);
        }
        let mut lost = Vec::new();
        if let &[(block, order)] = &*blocks
            && order > wanted
        {
            let mut parts = FreeParts::of_block(block, order);
            parts.take(wanted);
            for (part, order) in parts.iter() {
                if buddy.claim_at(part, order) {
                    (visit.record_order)(part, order);
                    reservation.add(part, order);
                } else {
                    lost.push((part, order));
                }
            }
        }
        self.grant(wanted, first, visit);
        self.serve_around_all(&lost, visit);
    }

    /// Frees what is reserved if the last free was withheld from the waiters of a policy too: the
    /// policy alone knows them.
    fn withhold_from_others(&mut self, visit: &mut Visit) {
        let Some(reservation) = &mut self.reservation else { return };
        if reservation.is_withheld_twice()
            && let Some((first, order)) = reservation.take_last()
        {
            visit.free(&[(first, order)]);
            self.serve_around(first, order, visit);
        }
    }

    /// Frees what was reserved, for those that it serves.
    fn give_up(&mut self, mut reservation: Reservation, visit: &mut Visit) {
        let blocks = reservation.take_blocks_in(reservation.first, reservation.order);
        visit.free(&blocks);
        self.serve_around_all(&blocks, visit);
    }

    fn serve_around_all(&mut self, blocks: &[(u32, u32)], visit: &mut Visit) {
        for &(first, order) in blocks {
            self.serve_around(first, order, visit);
        }
    }

    /// Grants `slot` to the oldest waiter of its order.
    fn grant(&mut self, order: u32, slot: u32, visit: &mut Visit) {
        if !visit.allocator.has_slots() {
            (visit.record_order)(slot, order);
        }
        let queue = self.of_order(order);
        let waiter = queue.waiting.pop_front().expect("the caller has seen a waiter");
        debug_assert!(queue.granted.back().is_none_or(|(last, _)| *last < waiter.ticket));
        queue.granted.push_back((waiter.ticket, slot));
        visit.wakers.push_woken(waiter.waker);
    }

    fn is_nobody_waiting(&self) -> bool {
        self.orders.iter().all(|queue| queue.waiting.is_empty())
    }

    /// Returns the order that the oldest waiter waits for, among orders below `below`.
    fn oldest_order(&self, below: u32) -> Option<u32> {
        let heads = self.orders.iter().zip(0..below).filter_map(|(queue, order)| {
            let head = queue.waiting.front()?;
            Some((head.ticket, order))
        });
        heads.min().map(|(_, order)| order)
    }

    fn largest_order_waited_for(&self) -> Option<u32> {
        self.orders.iter().rposition(|queue| !queue.waiting.is_empty()).map(|order| order as u32)
    }

    /// Records that the free of the block at `min_block` is done, and bypassed the oldest waiter
    /// for a large block. Reserves memory for that waiter if it was bypassed once too often.
    fn record_bypass(&mut self, min_block: u32) {
        if self.reservation.is_some() {
            return;
        }
        let Some((ticket, order)) = self.next_to_reserve_for() else { return };
        let count = if self.bypassed.0 == ticket { self.bypassed.1 + 1 } else { 1 };
        self.bypassed = (ticket, count);
        if count > BYPASS_MAX {
            self.bypassed.1 = 0;
            self.reservation = Some(Reservation::around(min_block, order, ticket));
        }
    }

    /// Returns the ticket and the order of the waiter for which memory is reserved next: the oldest
    /// for a large block whose turn it is, or else the oldest of all.
    fn next_to_reserve_for(&self) -> Option<(u64, u32)> {
        let orders = (self.orders.len() as u32).saturating_sub(ORDERS_WITHOUT);
        let heads = || {
            (1..orders).filter_map(|order| {
                Some((self.orders[order as usize].waiting.front()?.ticket, order))
            })
        };
        let in_turn = heads().filter(|(ticket, _)| self.turns.contains(ticket)).min();
        in_turn.or_else(|| heads().min())
    }

    /// Gives the reservation up if its waiter is served or has left.
    fn end_unneeded_reservation(&mut self, visit: &mut Visit) {
        let is_unneeded =
            |it: &mut Reservation| self.orders[it.order as usize].find(it.ticket).is_none();
        if let Some(reservation) = self.reservation.take_if(is_unneeded) {
            self.give_up(reservation, visit);
        }
    }

    /// Records a free that served nobody. Clears the `WAITERS` flags once nobody waits, and they
    /// have cost enough.
    fn record_idle_free(&mut self, allocator: &Allocator) {
        self.idle_frees += 1;
        let is_due = self.idle_frees * WORDS_PER_IDLE_FREE >= allocator.word_count();
        if self.waiters_flag_set && is_due && !self.keeps_flags {
            allocator.clear_waiters_flags();
            self.waiters_flag_set = false;
        }
    }

    fn of_order(&mut self, order: u32) -> &mut OrderQueue {
        &mut self.orders[order as usize]
    }
}

impl OrderQueue {
    fn take_granted(&mut self, ticket: u64) -> Option<u32> {
        let index = self.granted.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        self.granted.remove(index).map(|(_, slot)| slot)
    }

    fn waiting_mut(&mut self, ticket: u64) -> &mut Waiter {
        let index = self.find(ticket).expect("a waiter waits until it is granted a slot");
        &mut self.waiting[index]
    }

    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        allocator: &'a Allocator,
        record_order: RecordOrder<'a>,
        has_callback: bool,
    ) -> Visit<'a> {
        let (wakers, left) = (WakeList::default(), Vec::new());
        Visit { allocator, record_order, wakers, has_callback, left }
    }

    /// Frees claims, without a word to the waiters.
    fn free(&self, claims: &[(u32, u32)]) {
        for &(first, order) in claims {
            let freed = self.allocator.free_ignoring_waiters(first, order);
            debug_assert!(freed == FreeOutcome::Done, "the visitor holds a handle");
        }
    }

    /// Takes note that a part of a block of `order` that was freed is left for others.
    fn leave_for_others(&mut self, order: u32) {
        if self.has_callback {
            self.left.push(order);
        }
    }
}
