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
use std::task::Waker;

use super::reservation::{BYPASS_MAX, ORDERS_WITHOUT, Reservation};
use crate::slots::{Allocator, FreeOutcome};
use crate::sync::contain;

/// The number of words of the allocator that one free in vain pays for. Setting and clearing the
/// `WAITERS` flags of so many words costs about a tenth of what such a free costs.
const WORDS_PER_IDLE_FREE: usize = 4;

/// A queue of waiters, with a queue for each order of blocks.
// Invariants:
// 1. A waiter is in `waiting` or in `granted` of its order, never in both; both are sorted by
//    ticket.
// 2. A slot in `granted` is claimed in the allocator and has no lease.
// 3. While somebody is waiting, `waiters_flag_set` is true.
pub(super) struct WaitQueue {
    /// Every word of the allocator has its `WAITERS` flag.
    waiters_flag_set: bool,
    /// The flags are never cleared: a callback hears of every free.
    keeps_flags: bool,
    /// The number of frees that found nobody waiting, since a waiter joined last.
    idle_frees: usize,
    reservation: Option<Reservation>,
    /// The ticket of the oldest waiter for which memory can be reserved, and the number of frees
    /// that have bypassed it.
    bypassed: (u64, u32),
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
    /// The wakers of the waiters that were granted memory, to be called.
    pub(super) wakers: WakeList,
    /// The waker of a waiter that left, to be dropped.
    pub(super) unneeded: Option<Waker>,
    /// The order of a block that became free.
    pub(super) freed_order: Option<u32>,
}

/// A list of wakers to call once a lock is released: a waker may run anything, even a free of the
/// same arena.
#[derive(Default)]
pub(super) struct WakeList {
    first: Option<Waker>,
    others: Vec<Waker>,
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
            next_ticket: 0,
            orders: (0..allocator.order_count()).map(|_| OrderQueue::default()).collect(),
        }
    }

    /// Sets the `WAITERS` flags of the allocator for ever.
    pub(super) fn keep_flags(&mut self, allocator: &Allocator) {
        self.set_flags(allocator);
        self.keeps_flags = true;
    }

    fn set_flags(&mut self, allocator: &Allocator) {
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

    /// Takes the slot that was granted to `id`. Without one, returns the waker that is called when
    /// one is granted, to be changed.
    pub(super) fn poll(&mut self, id: WaiterId) -> Result<u32, &mut Option<Waker>> {
        let queue = self.of_order(id.order);
        if let Some(slot) = queue.take_granted(id.ticket) {
            return Ok(slot);
        }
        let index = queue.find(id.ticket).expect("a waiter waits until it is granted a slot");
        Err(&mut queue.waiting[index].waker)
    }

    /// Removes a waiter. Memory that was granted to it, or reserved for it, goes to the others.
    pub(super) fn leave(&mut self, id: WaiterId, visit: &mut Visit) {
        let queue = self.of_order(id.order);
        let granted = queue.take_granted(id.ticket);
        if granted.is_none() {
            let waiter = queue.find(id.ticket).and_then(|index| queue.waiting.remove(index));
            visit.unneeded = waiter.and_then(|waiter| waiter.waker);
        }
        if let Some(mut reservation) = self.take_unneeded_reservation() {
            visit.free(reservation.take_blocks());
            self.grant_blocks(visit);
        }
        if let Some(first) = granted {
            self.release(first, id.order, visit);
        }
    }

    /// Gives a claimed slot, or a block of `order`, to the waiters, or frees it.
    pub(super) fn release(&mut self, first: u32, order: u32, visit: &mut Visit) {
        let is_granted = if !visit.allocator.has_slots() {
            self.release_block(first, order, visit)
        } else if self.is_nobody_waiting() {
            visit.free([(first, 0)]);
            false
        } else {
            // Without a visit to the bitmap, where a newcomer could claim the slot.
            self.grant(0, first, visit);
            true
        };
        if !is_granted {
            visit.freed_order = Some(order);
            self.record_idle_free(visit.allocator);
        }
    }

    /// Adds a block to the reservation, or frees it. A free block merges with its neighbours, and
    /// then serves every waiter that it can.
    ///
    /// Returns `false` if the block is free, and served no waiter.
    fn release_block(&mut self, first: u32, order: u32, visit: &mut Visit) -> bool {
        let buddy = visit.allocator.blocks();
        let covering = self.reservation.as_mut().filter(|it| it.covers(first, order));
        if let Some(reservation) = covering {
            let reserved = reservation.add(first, order);
            if buddy.live_min_blocks_in(reservation.first, reservation.order) > reserved {
                return true;
            }
            // All of the range is reserved or free. If a newcomer is faster now, its block comes
            // back to the reservation.
            visit.free(reservation.take_blocks());
        } else {
            visit.free([(first, order)]);
            let min_blocks = 1 << buddy.max_order();
            // In the time of these frees all of the arena could have come back: a block in the
            // range is there to stay.
            let overdue = self.reservation.take_if(|it| it.record_free_elsewhere() > min_blocks);
            if let Some(mut reservation) = overdue {
                visit.free(reservation.take_blocks());
            }
        }
        let is_granted = self.grant_blocks(visit);
        self.record_bypass(first);
        is_granted
    }

    /// Claims for the waiters, the oldest first, all that can be claimed: a block that was freed
    /// may serve many small ones, or one that is larger than itself.
    ///
    /// Returns `false` if there was nothing for anybody.
    fn grant_blocks(&mut self, visit: &mut Visit) -> bool {
        let mut is_granted = false;
        // An allocator that cannot serve one order can serve no larger one.
        let mut below = u32::MAX;
        while let Some(order) = self.oldest_order(below) {
            let Some(first) = visit.allocator.blocks().claim(order) else {
                below = order;
                continue;
            };
            (visit.record_order)(first, order);
            self.grant(order, first, visit);
            is_granted = true;
            if let Some(mut reservation) = self.take_unneeded_reservation() {
                visit.free(reservation.take_blocks());
                below = u32::MAX;
            }
        }
        is_granted
    }

    /// Grants `slot` to the oldest waiter of its order.
    fn grant(&mut self, order: u32, slot: u32, visit: &mut Visit) {
        let queue = self.of_order(order);
        let waiter = queue.waiting.pop_front().expect("the caller has seen a waiter");
        debug_assert!(queue.granted.back().is_none_or(|(last, _)| *last < waiter.ticket));
        queue.granted.push_back((waiter.ticket, slot));
        visit.wakers.push(waiter.waker);
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

    /// Records that the free of the block at `min_block` is done, and bypassed the oldest waiter
    /// for a large block. Reserves memory for that waiter if it was bypassed once too often.
    fn record_bypass(&mut self, min_block: u32) {
        let below = (self.orders.len() as u32).saturating_sub(ORDERS_WITHOUT);
        let Some(order) =
            self.oldest_order(below).filter(|&order| order > 0 && self.reservation.is_none())
        else {
            return;
        };
        let ticket = self.orders[order as usize].waiting[0].ticket;
        let count = if self.bypassed.0 == ticket { self.bypassed.1 + 1 } else { 1 };
        self.bypassed = (ticket, count);
        if count > BYPASS_MAX {
            self.reservation = Some(Reservation::around(min_block, order, ticket));
        }
    }

    /// Takes the reservation if its waiter is served or has left.
    fn take_unneeded_reservation(&mut self) -> Option<Reservation> {
        self.reservation.take_if(|it| self.orders[it.order as usize].find(it.ticket).is_none())
    }

    /// Records a free that served nobody. Clears the `WAITERS` flags once nobody waits, and they
    /// have cost enough.
    fn record_idle_free(&mut self, allocator: &Allocator) {
        if !self.is_nobody_waiting() {
            return;
        }
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

    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }
}

impl Visit<'_> {
    /// Frees claims, without a word to the waiters.
    fn free(&self, claims: impl IntoIterator<Item = (u32, u32)>) {
        for (first, order) in claims {
            let freed = self.allocator.free_ignoring_waiters(first, order);
            debug_assert!(freed == FreeOutcome::Done, "the visitor holds a handle");
        }
    }
}

impl WakeList {
    fn push(&mut self, waker: Option<Waker>) {
        match self.first {
            None => self.first = waker,
            Some(_) => self.others.extend(waker),
        }
    }

    /// Calls every waker. One that panics keeps no other from being called, nor harms who freed.
    pub(super) fn wake_all(self) {
        for waker in self.first.into_iter().chain(self.others) {
            contain("the waker of a claim that waits", || waker.wake());
        }
    }
}
