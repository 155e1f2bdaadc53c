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
use std::time::{Duration, Instant};

use super::reservation::{
    BYPASS_MAX, FREES_IN_VAIN_PER_MIN_BLOCK, FreeParts, ORDERS_WITHOUT, Reservation,
    WITHHELD_FROM_OTHERS_MAX, WITHHELD_MAX,
};
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
    /// The watches that wait to be called.
    watches: Vec<Watch>,
    /// The number of claimants that wait under a policy of the user's.
    waiting_elsewhere: usize,
    counts: WaitCounts,
    /// The waiters for blocks of each order, and the slots that were granted to them.
    orders: Box<[TicketQueue<u32>]>,
}

/// The waits of an arena: those that last now, and those that have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WaitCounts {
    /// The claimants that wait now.
    pub(crate) waiters: usize,
    /// The most claimants that waited at one time.
    pub(crate) waiters_max: usize,
    /// The waits that began.
    pub(crate) waits: u64,
    /// The longest wait so far, be it over or not. One under a policy of the user's counts when it
    /// is over.
    pub(crate) longest_wait: Duration,
    /// A claimant waited because, at some instant, nothing at all was free.
    pub(crate) was_full: bool,
}

/// The wish of a ring to be told, once, that somebody begins to wait.
struct Watch {
    id: WatchId,
    waker: Waker,
    /// A claim that is refused is told too, once.
    hears_refusals: bool,
}

/// The identity of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchId(u64);

/// A queue of waiters by their tickets, and what was granted to them.
pub(crate) struct TicketQueue<T> {
    waiting: VecDeque<Waiter>,
    granted: VecDeque<(u64, T)>,
    /// The longest wait that is over.
    longest: Duration,
}

struct Waiter {
    ticket: u64,
    since: Instant,
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
    /// The orders of the blocks that were freed, and of which a part may be left.
    left: Vec<u32>,
    /// The number of smallest blocks that were freed and not taken again.
    balance: i64,
}

/// The answer to a waiter that polls.
pub(crate) enum Polled<T> {
    /// A grant, which the waiter takes with this answer.
    Granted(T),
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
            watches: Vec::new(),
            waiting_elsewhere: 0,
            counts: WaitCounts::default(),
            orders: (0..allocator.order_count()).map(|_| TicketQueue::new()).collect(),
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
        self.of_order(order).join(ticket);
        self.record_wait();
        WaiterId { order, ticket }
    }

    /// Counts a wait that has just begun.
    fn record_wait(&mut self) {
        self.counts.waits += 1;
        self.counts.waiters_max = self.counts.waiters_max.max(self.waiter_count());
    }

    fn waiter_count(&self) -> usize {
        let queued: usize = self.orders.iter().map(|queue| queue.waiting.len()).sum();
        queued + self.waiting_elsewhere
    }

    /// Notes that at this instant nothing at all is free.
    pub(super) fn record_full(&mut self) {
        self.counts.was_full = true;
    }

    /// Returns the waits so far.
    pub(super) fn counts(&self) -> WaitCounts {
        let longest = self.orders.iter().map(TicketQueue::longest_wait).max();
        let longest_wait = self.counts.longest_wait.max(longest.unwrap_or_default());
        WaitCounts { waiters: self.waiter_count(), longest_wait, ..self.counts }
    }

    /// Takes the slot that was granted to `id`, or tells whether `waker` is the one to be called.
    pub(super) fn poll(&mut self, id: WaiterId, waker: &Waker) -> Polled<u32> {
        self.of_order(id.order).poll(id.ticket, waker)
    }

    /// Takes the slot that was granted to `id`, or keeps `waker` to be called when one is.
    ///
    /// Also returns the waker that is not needed. The caller drops it outside of the lock.
    pub(super) fn poll_with(&mut self, id: WaiterId, waker: Waker) -> (Poll<u32>, Option<Waker>) {
        self.of_order(id.order).poll_with(id.ticket, waker)
    }

    /// Returns whether somebody waits, in this queue or under a policy of the user's.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting_elsewhere > 0 || !self.is_nobody_waiting()
    }

    /// Notes that a claimant begins to wait under a policy of the user's.
    pub(super) fn begin_elsewhere(&mut self) {
        self.waiting_elsewhere += 1;
        self.record_wait();
    }

    /// Notes that such a claimant, which waited for as long as `waited`, waits no more.
    pub(super) fn end_elsewhere(&mut self, waited: Duration) {
        self.waiting_elsewhere -= 1;
        self.counts.longest_wait = self.counts.longest_wait.max(waited);
    }

    /// Returns an identity for watches.
    pub(super) fn new_watch_id(&mut self) -> WatchId {
        self.next_ticket += 1;
        WatchId(self.next_ticket)
    }

    /// Adds a watch, in the place of the one with the same identity. Returns the waker that is not
    /// needed any more.
    pub(super) fn watch(
        &mut self,
        id: WatchId,
        waker: Waker,
        hears_refusals: bool,
    ) -> Option<Waker> {
        let before = self.unwatch(id);
        self.watches.push(Watch { id, waker, hears_refusals });
        before
    }

    /// Removes a watch. Returns its waker.
    pub(super) fn unwatch(&mut self, id: WatchId) -> Option<Waker> {
        let index = self.watches.iter().position(|watch| watch.id == id)?;
        Some(self.watches.swap_remove(index).waker)
    }

    pub(super) fn has_watches(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Takes all watches out, to be called.
    pub(super) fn take_watches(&mut self, wakers: &mut WakeList) {
        for watch in self.watches.drain(..) {
            wakers.push_woken(Some(watch.waker));
        }
    }

    /// Collects the wakers that hear of a refusal. They hear of no other.
    pub(super) fn tell_of_refusal(&mut self, wakers: &mut WakeList) {
        for watch in &mut self.watches {
            if std::mem::take(&mut watch.hears_refusals) {
                wakers.push_woken(Some(watch.waker.clone()));
            }
        }
    }

    /// Removes a waiter. Memory that was granted to it, or reserved for it, goes to the others.
    pub(super) fn leave(&mut self, id: WaiterId, visit: &mut Visit) {
        let (granted, waker) = self.of_order(id.order).leave(id.ticket);
        visit.wakers.push_unneeded(waker);
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
        let frees_max = FREES_IN_VAIN_PER_MIN_BLOCK << visit.allocator.blocks().max_order();
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
        let overdue = self.reservation.take_if(|it| it.record_free() > frees_max);
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
        let held = reservation.min_blocks_in(range, order);
        let missing = buddy.live_min_blocks_in(range, order).saturating_sub(held);
        reservation.record_missing(missing);
        if missing == 0 {
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
            if self.keeps_flags {
                self.withhold_from_others(visit);
            }
            return;
        };
        let Some(reservation) = &mut self.reservation else { return };
        if is_older || !reservation.withhold(WITHHELD_MAX) {
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
                let is_older = self.orders[wanted as usize].first() < Some(reservation.ticket);
                return Some((first, wanted, is_older));
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
                    visit.take(part, order);
                    reservation.add(part, order);
                } else {
                    lost.push((part, order));
                }
            }
        }
        self.grant(wanted, first, visit);
        self.serve_around_all(&lost, visit);
    }

    /// Withholds the last free from the waiters of a callback, which alone knows them, or frees the
    /// block if many before it were withheld.
    fn withhold_from_others(&mut self, visit: &mut Visit) {
        let Some(reservation) = &mut self.reservation else { return };
        if !reservation.withhold(WITHHELD_FROM_OTHERS_MAX)
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
            visit.take(slot, order);
        }
        visit.wakers.push_woken(self.of_order(order).grant(slot));
    }

    fn is_nobody_waiting(&self) -> bool {
        self.orders.iter().all(|queue| queue.first().is_none())
    }

    /// Returns the order that the oldest waiter waits for, among orders below `below`.
    fn oldest_order(&self, below: u32) -> Option<u32> {
        let heads = self.orders.iter().zip(0..below);
        let heads = heads.filter_map(|(queue, order)| Some((queue.first()?, order)));
        heads.min().map(|(_, order)| order)
    }

    fn largest_order_waited_for(&self) -> Option<u32> {
        self.orders.iter().rposition(|queue| queue.first().is_some()).map(|order| order as u32)
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
        let heads =
            || (1..orders).filter_map(|order| Some((self.orders[order as usize].first()?, order)));
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

    fn of_order(&mut self, order: u32) -> &mut TicketQueue<u32> {
        &mut self.orders[order as usize]
    }
}

impl<T> TicketQueue<T> {
    /// Makes an empty queue.
    pub(crate) fn new() -> TicketQueue<T> {
        let (waiting, granted) = (VecDeque::new(), VecDeque::new());
        TicketQueue { waiting, granted, longest: Duration::ZERO }
    }

    /// Adds a waiter behind all others. Its ticket is higher than theirs.
    pub(crate) fn join(&mut self, ticket: u64) {
        self.waiting.push_back(Waiter { ticket, since: Instant::now(), waker: None });
    }

    /// Returns the ticket of the oldest waiter.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|waiter| waiter.ticket)
    }

    /// Returns the longest wait, be it over or not.
    fn longest_wait(&self) -> Duration {
        let oldest = self.waiting.front().map(|waiter| waiter.since.elapsed());
        self.longest.max(oldest.unwrap_or_default())
    }

    /// Grants `value` to the oldest waiter. There is one. Returns its waker.
    pub(crate) fn grant(&mut self, value: T) -> Option<Waker> {
        let waiter = self.waiting.pop_front().expect("the caller has seen a waiter");
        debug_assert!(self.granted.back().is_none_or(|(last, _)| *last < waiter.ticket));
        self.longest = self.longest.max(waiter.since.elapsed());
        self.granted.push_back((waiter.ticket, value));
        waiter.waker
    }

    /// Takes what was granted to a waiter, or tells whether `waker` is the one to be called.
    pub(crate) fn poll(&mut self, ticket: u64, waker: &Waker) -> Polled<T> {
        if let Some(value) = self.take_granted(ticket) {
            return Polled::Granted(value);
        }
        match &self.waiting_mut(ticket).waker {
            Some(kept) if kept.will_wake(waker) => Polled::Waits,
            _ => Polled::NeedsWaker,
        }
    }

    /// Takes what was granted to a waiter, or keeps `waker` to be called when something is.
    ///
    /// Also returns the waker that is not needed. The caller drops it outside of the lock.
    pub(crate) fn poll_with(&mut self, ticket: u64, waker: Waker) -> (Poll<T>, Option<Waker>) {
        match self.take_granted(ticket) {
            Some(value) => (Poll::Ready(value), Some(waker)),
            None => (Poll::Pending, self.waiting_mut(ticket).waker.replace(waker)),
        }
    }

    /// Removes a waiter. Returns what was granted to it, or else its waker.
    pub(crate) fn leave(&mut self, ticket: u64) -> (Option<T>, Option<Waker>) {
        let granted = self.take_granted(ticket);
        let waiter = self.find(ticket).and_then(|index| self.waiting.remove(index));
        if let Some(waiter) = &waiter {
            self.longest = self.longest.max(waiter.since.elapsed());
        }
        (granted, waiter.and_then(|waiter| waiter.waker))
    }

    fn take_granted(&mut self, ticket: u64) -> Option<T> {
        let index = self.granted.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        self.granted.remove(index).map(|(_, value)| value)
    }

    fn waiting_mut(&mut self, ticket: u64) -> &mut Waiter {
        let index = self.find(ticket).expect("a waiter waits until it is granted something");
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
        Visit { allocator, record_order, wakers, has_callback, left, balance: 0 }
    }

    /// Returns the orders of blocks that were freed and left for others, at least in part.
    pub(super) fn take_left(&mut self) -> Vec<u32> {
        if self.balance > 0 { std::mem::take(&mut self.left) } else { Vec::new() }
    }

    /// Takes note of a block that was claimed for a waiter, or for a reservation.
    fn take(&mut self, first: u32, order: u32) {
        (self.record_order)(first, order);
        self.balance -= 1 << order;
    }

    /// Frees claims, without a word to the waiters.
    fn free(&mut self, claims: &[(u32, u32)]) {
        for &(first, order) in claims {
            self.balance += 1 << order;
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
