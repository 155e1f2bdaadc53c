//! Waiting for slots: who waits is served in order of arrival, by the free itself.
//!
//! A claimant that found nothing takes a seat in the ledger, sees to it that every word has the
//! WAITERS bit, and looks once more. A free that meets the bit comes here: while anybody sleeps its
//! slot does not go back to the books, where a newcomer could take it, but is kept for the oldest
//! seat, and that one is woken. So nobody overtakes a sleeper, nobody is woken for nothing, and a
//! seat that is given up hands on what was kept for it.
//!
//! No wake is lost: the look of a claimant comes after its visit to the ledger, and a free that
//! meets the bit happens inside a visit. If the free's visit came first, the look sees the slot (or
//! its next owner's free comes later); else the free sees the seat. A free that did not meet the
//! bit came before it in the word's order, so the look sees that one too.
//!
//! While nobody waits nothing here is touched.

use std::task::Waker;

use super::allocator::Allocator;
use super::handle::Handle;
use super::ledger::{Ledger, Seat, Turn};
use super::waiter::{Bell, WaitForSlot};
use crate::slots::FreeOutcome;
use crate::sync::{Mutex, Ordering, fence};

/// Frees that meet a WAITERS bit in vain, per word of the books, before the bits are taken back:
/// setting and clearing them costs about a tenth of what those frees did.
const WORDS_PER_IDLE_FREE: usize = 4;

/// What is told of every free whose slot went back to the books, with the block's order: a wake
/// policy of the user's.
pub(crate) type OnFree = Box<dyn Fn(u32) + Send + Sync>;

/// The queue of waiters of one arena.
pub(crate) struct Waiters {
    pub(super) ledger: Mutex<Ledger>,
    hook: Option<OnFree>,
}

impl Waiters {
    pub(super) fn new(allocator: &Allocator, hook: Option<OnFree>) -> Waiters {
        let mut ledger = Ledger::new(allocator.orders());
        if hook.is_some() {
            // The hook's owner does not say when somebody waits, so it is told of every free,
            // always.
            allocator.set_waiters();
            ledger.armed = true;
        }
        Waiters { ledger: Mutex::new(ledger), hook }
    }
}

impl Handle {
    /// Takes a seat behind all who wait. The caller looks for a free slot after this, and waits for
    /// the place only if there is none; the place then comes with the slot.
    pub(crate) fn join_queue(&self, order: u32) -> WaitForSlot {
        let mut ledger = self.waiters.ledger.lock();
        if !ledger.armed {
            // Inside the lock: who finds `armed` set must find the bits set.
            self.allocator.set_waiters();
            ledger.armed = true;
        }
        WaitForSlot::new(self.clone(), ledger.join(order))
    }

    /// A future that is ready once it is worth looking for a free slot again. The caller looks
    /// after this, and once more whenever the future was ready, and awaits it only if there was
    /// none.
    pub(crate) fn listen(&self) -> Bell {
        Bell::new(self.join_queue(0))
    }

    /// A slot comes back, or a block of `order`, and somebody may wait for it: to the oldest seat
    /// that it serves, else to the books. The caller owns the claim, and uses it no more.
    pub(super) fn come_back(&self, slot: u32, order: u32) {
        let mut wakes = Wakes::default();
        let mut ledger = self.waiters.ledger.lock();
        let is_kept = match &self.allocator {
            Allocator::Slots(_) => self.serve_slot(&mut ledger, slot, &mut wakes),
            Allocator::Blocks(_) => self.serve_blocks(&mut ledger, slot, order, &mut wakes),
        };
        if ledger.nobody_sleeps() && !is_kept {
            self.note_idle_free(&mut ledger);
        }
        drop(ledger);
        wakes.call();
        if let Some(hook) = self.waiters.hook.as_ref().filter(|_| !is_kept) {
            // The hook's owner looks at its waiters without our lock: the free before that look, as
            // the look of a waiter comes after its registration (`arena::waiter`).
            fence(Ordering::SeqCst);
            hook(order);
        }
    }

    /// To the oldest seat, without a visit to the books. False if nobody sleeps, and the slot is
    /// free now.
    fn serve_slot(&self, ledger: &mut Ledger, slot: u32, wakes: &mut Wakes) -> bool {
        if ledger.nobody_sleeps() {
            self.free_unheeded(slot, 0);
            return false;
        }
        wakes.add(ledger.serve(0, slot));
        true
    }

    /// To the hoard, or to the books, where the block merges with its neighbours and serves who it
    /// can. False if it is in the books and served nobody.
    fn serve_blocks(&self, ledger: &mut Ledger, first: u32, order: u32, wakes: &mut Wakes) -> bool {
        if let Some(hoard) = ledger.hoard.as_mut().filter(|hoard| hoard.covers(first, order)) {
            let kept_units = hoard.keep(first, order);
            if self.allocator.blocks().live_units_in(hoard.first, hoard.order) > kept_units {
                return true;
            }
            // All of the place is kept or free. If a newcomer is faster now, its block comes back
            // to the hoard.
            self.free_pieces(hoard.take_pieces());
        } else {
            self.free_unheeded(first, order);
            let units = 1 << self.allocator.blocks().max_order();
            // In the time of these frees all of the arena could have come back: something in the
            // place is there to stay.
            if let Some(mut hoard) =
                ledger.hoard.take_if(|hoard| hoard.note_free_elsewhere() > units)
            {
                self.free_pieces(hoard.take_pieces());
            }
        }
        let served = self.serve_from_books(ledger, wakes);
        ledger.note_pass(first);
        served
    }

    /// Claims for the seats, the oldest first, all that can be claimed: a block that came back may
    /// serve many small ones, or one that is larger than itself. False if there was nothing for
    /// anybody.
    fn serve_from_books(&self, ledger: &mut Ledger, wakes: &mut Wakes) -> bool {
        let map = self.allocator.blocks();
        let mut served = false;
        // What could not serve one order serves no larger one.
        let mut below = u32::MAX;
        while let Some(order) = ledger.oldest_order(below) {
            let Some(first) = map.claim(order) else {
                below = order;
                continue;
            };
            self.note_order(first, order);
            wakes.add(ledger.serve(order, first));
            served = true;
            if let Some(mut hoard) = ledger.take_hoard_of_nobody() {
                self.free_pieces(hoard.take_pieces());
                below = u32::MAX;
            }
        }
        served
    }

    fn free_pieces(&self, pieces: Vec<(u32, u32)>) {
        pieces.into_iter().for_each(|(first, order)| self.free_unheeded(first, order));
    }

    /// Gives up `seat`: what was kept or held for it goes to the others.
    pub(super) fn leave_queue(&self, seat: Seat) {
        let mut wakes = Wakes::default();
        let mut ledger = self.waiters.ledger.lock();
        let turn = ledger.leave(seat);
        if let Some(mut hoard) = ledger.take_hoard_of_nobody() {
            self.free_pieces(hoard.take_pieces());
            self.serve_from_books(&mut ledger, &mut wakes);
        }
        drop(ledger);
        wakes.call();
        // From here on outside of the lock: the last waker of a task may take the task with it.
        match turn {
            Turn::Served(slot) => self.come_back(slot, seat.order),
            Turn::Sleeping(waker) => drop(waker),
        }
    }

    /// Frees a claim, and wakes nobody for it.
    pub(super) fn free_unheeded(&self, slot: u32, order: u32) {
        let freed = self.allocator.free_despite_waiters(slot, order);
        debug_assert!(freed == FreeOutcome::Done, "closed under a handle");
    }

    /// Takes the WAITERS bits back once they have cost enough.
    fn note_idle_free(&self, ledger: &mut Ledger) {
        ledger.idle_frees += 1;
        let is_due = ledger.idle_frees * WORDS_PER_IDLE_FREE >= self.allocator.word_count();
        if ledger.armed && is_due && self.waiters.hook.is_none() {
            self.allocator.clear_waiters();
            ledger.armed = false;
        }
    }
}

/// Wakers to call once the lock is released: a waker may run anything, even a free of this arena.
#[derive(Default)]
struct Wakes {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakes {
    fn add(&mut self, waker: Option<Waker>) {
        match self.first {
            None => self.first = waker,
            Some(_) => self.others.extend(waker),
        }
    }

    fn call(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}
