//! Who waits, in order of arrival, and the slots on their way to them. Always behind the mutex of
//! `Waiters`.
//!
//! ```text
//!               sleeping               kept
//! order 0   7  8  11  …            5 → slot 3       a slot that came back, for the one seat that was woken for it
//! order 1   9  10                  –                one line per order of blocks; a fixed arena has order 0 only
//! ```
//!
//! Invariants: 1. A seat is in `sleeping` or in `kept` of its line, never in both; both are sorted
//! by ticket. 2. What is in `kept` is claimed in the books and has no lease. 3. While somebody
//! sleeps, `armed` is set.

use std::collections::VecDeque;
use std::task::Waker;

use super::hoard::{Hoard, ORDERS_BELOW_MAX, PASSES_MAX};

pub(super) struct Ledger {
    /// Every word of the books has the WAITERS bit.
    pub(super) armed: bool,
    /// Frees that came the slow road for nobody since somebody joined last.
    pub(super) idle_frees: usize,
    pub(super) hoard: Option<Hoard>,
    /// The oldest seat that a hoard can be made for, and how many frees have passed it over.
    passed_over: (u64, u32),
    tickets: u64,
    lines: Box<[Line]>,
}

/// Those who wait for blocks of one order.
#[derive(Default)]
struct Line {
    sleeping: VecDeque<Sleeper>,
    kept: VecDeque<(u64, u32)>,
}

struct Sleeper {
    ticket: u64,
    waker: Option<Waker>,
}

/// A place in the queue. The ticket tells the arrivals apart: 2⁶⁴ of them do not run out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) order: u32,
    ticket: u64,
}

/// What a seat has come to.
pub(super) enum Turn {
    /// This slot was kept for it, and is the caller's now.
    Served(u32),
    /// Nothing yet. A waker that is needed no more, to be dropped outside of the lock.
    Sleeping(Option<Waker>),
}

impl Ledger {
    pub(super) fn new(orders: usize) -> Ledger {
        Ledger {
            armed: false,
            idle_frees: 0,
            hoard: None,
            passed_over: (0, 0),
            tickets: 0,
            lines: (0..orders).map(|_| Line::default()).collect(),
        }
    }

    /// A seat behind all others of its order.
    pub(super) fn join(&mut self, order: u32) -> Seat {
        debug_assert!(self.armed);
        let ticket = self.tickets;
        self.tickets += 1;
        self.idle_frees = 0;
        self.line(order).sleeping.push_back(Sleeper { ticket, waker: None });
        Seat { order, ticket }
    }

    pub(super) fn nobody_sleeps(&self) -> bool {
        self.lines.iter().all(|line| line.sleeping.is_empty())
    }

    /// The order that the oldest sleeper waits for, among orders below `below`.
    pub(super) fn oldest_order(&self, below: u32) -> Option<u32> {
        let heads = self.lines.iter().zip(0..below).filter_map(|(line, order)| {
            let head = line.sleeping.front()?;
            Some((head.ticket, order))
        });
        heads.min().map(|(_, order)| order)
    }

    /// Keeps `slot` for the oldest sleeper of its order, and gives the waker to call once the lock
    /// is released.
    pub(super) fn serve(&mut self, order: u32, slot: u32) -> Option<Waker> {
        let line = self.line(order);
        let sleeper = line.sleeping.pop_front().expect("the caller has seen it sleep");
        debug_assert!(line.kept.back().is_none_or(|(last, _)| *last < sleeper.ticket));
        line.kept.push_back((sleeper.ticket, slot));
        sleeper.waker
    }

    /// Takes the slot kept for `seat`, or leaves `waker` to be woken for one.
    pub(super) fn look(&mut self, seat: Seat, waker: &Waker) -> Turn {
        let line = self.line(seat.order);
        if let Some(slot) = line.take_kept(seat.ticket) {
            return Turn::Served(slot);
        }
        let at = line.find(seat.ticket).expect("a seat sleeps until it is served");
        let left = &mut line.sleeping[at].waker;
        if left.as_ref().is_some_and(|left| left.will_wake(waker)) {
            return Turn::Sleeping(None);
        }
        Turn::Sleeping(left.replace(waker.clone()))
    }

    /// Gives `seat` up. What was kept for it goes to somebody else, by the caller.
    pub(super) fn leave(&mut self, seat: Seat) -> Turn {
        let line = self.line(seat.order);
        if let Some(slot) = line.take_kept(seat.ticket) {
            return Turn::Served(slot);
        }
        let sleeper = line.find(seat.ticket).and_then(|at| line.sleeping.remove(at));
        Turn::Sleeping(sleeper.and_then(|sleeper| sleeper.waker))
    }

    /// Notes that a free of the block at `unit` is through; makes a hoard around it if that passed
    /// over a large one once too often.
    pub(super) fn note_pass(&mut self, unit: u32) {
        let below = (self.lines.len() as u32).saturating_sub(ORDERS_BELOW_MAX);
        let Some(order) =
            self.oldest_order(below).filter(|&order| order > 0 && self.hoard.is_none())
        else {
            return;
        };
        let ticket = self.lines[order as usize].sleeping[0].ticket;
        let passes = if self.passed_over.0 == ticket { self.passed_over.1 + 1 } else { 1 };
        self.passed_over = (ticket, passes);
        if passes > PASSES_MAX {
            self.hoard = Some(Hoard::around(unit, order, ticket));
        }
    }

    /// The hoard, if the seat that it was for has been served or given up.
    pub(super) fn take_hoard_of_nobody(&mut self) -> Option<Hoard> {
        self.hoard.take_if(|hoard| self.lines[hoard.order as usize].find(hoard.ticket).is_none())
    }

    fn line(&mut self, order: u32) -> &mut Line {
        &mut self.lines[order as usize]
    }
}

impl Line {
    fn take_kept(&mut self, ticket: u64) -> Option<u32> {
        let at = self.kept.binary_search_by_key(&ticket, |(kept_for, _)| *kept_for).ok()?;
        self.kept.remove(at).map(|(_, slot)| slot)
    }

    fn find(&self, ticket: u64) -> Option<usize> {
        self.sleeping.binary_search_by_key(&ticket, |sleeper| sleeper.ticket).ok()
    }
}
