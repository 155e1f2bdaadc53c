//! Memory reserved for a large block that small ones keep bypassing.
//!
//! Small blocks that come and go never leave the range of a large one empty at once. So when the
//! oldest waiter for a large block was bypassed often enough, one range of its size is reserved:
//! the range around the block that was freed just then. From there on a block that is freed inside
//! the range is held, and the range is empty when each of its blocks was freed. Everywhere else
//! small blocks are served as before: they lose one range, and never more than half of the arena,
//! because nothing is reserved for a block of the whole arena.
//!
//! The large block may never come: one small block in its range may stay. So no more than one free
//! in a row is withheld from a waiter that the held memory could serve; with the next one that
//! waiter is lent a block. And when many frees in a row have brought it no nearer to its end, the
//! reservation is given up, for that of the next waiter.

/// The number of frees that may bypass the oldest waiter before memory is reserved for it.
pub(super) const BYPASS_MAX: u32 = 16;

/// The number of frees in a row that are withheld from a waiter which the held memory could serve.
pub(super) const WITHHELD_MAX: u32 = 1;

/// The number of frees in a row that are withheld from those who wait under a callback of the
/// user's. Whether there are any, or what they wait for, only the callback's owner knows.
pub(super) const WITHHELD_FROM_OTHERS_MAX: u32 = 16;

/// The number of frees in a row that may bring a reservation no nearer to its end, for each
/// smallest block of the arena. If blocks live for random times, the last one of a range takes as
/// many frees as there are blocks, on the average.
pub(super) const FREES_IN_VAIN_PER_MIN_BLOCK: u64 = 4;

/// The number of largest orders for which nothing is reserved.
pub(super) const ORDERS_WITHOUT: u32 = 1;

/// The memory that is reserved for one waiter: blocks inside one range.
// Invariant: `blocks` lie in the range, are claimed in the allocator, and have no lease.
pub(super) struct Reservation {
    /// The ticket of the waiter.
    pub(super) ticket: u64,
    pub(super) order: u32,
    /// The first smallest block of the range.
    pub(super) first: u32,
    blocks: Vec<(u32, u32)>,
    /// The number of frees in a row that were withheld from a waiter that they could serve.
    withheld: u32,
    /// The number of smallest blocks in the range that were neither held nor free, at the least.
    missing_min: u64,
    /// The number of frees since `missing_min` fell last.
    frees_in_vain: u64,
}

impl Reservation {
    /// Reserves the range of `order` around `min_block` for the waiter with `ticket`.
    pub(super) fn around(min_block: u32, order: u32, ticket: u64) -> Reservation {
        let first = min_block >> order << order;
        Reservation {
            ticket,
            order,
            first,
            blocks: Vec::new(),
            withheld: 0,
            missing_min: u64::MAX,
            frees_in_vain: 0,
        }
    }

    /// Returns `true` if the block is smaller than the range and lies in it.
    pub(super) fn covers(&self, first: u32, order: u32) -> bool {
        order < self.order && contains((self.first, self.order), first)
    }

    /// Adds a block that was freed.
    pub(super) fn add(&mut self, first: u32, order: u32) {
        debug_assert!(self.covers(first, order));
        self.blocks.push((first, order));
    }

    /// Counts the smallest blocks that are held in the block of `order` at `first`.
    pub(super) fn min_blocks_in(&self, first: u32, order: u32) -> u64 {
        let held = self.blocks.iter().filter(|block| contains((first, order), block.0));
        held.map(|(_, order)| 1u64 << order).sum()
    }

    /// Finds a block of `order` that is held as a whole, or would be free without what is held in
    /// it: `is_whole` tells that of the latter.
    pub(super) fn find(&self, order: u32, is_whole: impl Fn(u32) -> bool) -> Option<u32> {
        let around = |&(first, held): &(u32, u32)| {
            let start = first >> order << order;
            (held >= order || is_whole(start)).then_some(start)
        };
        self.blocks.iter().find_map(around)
    }

    /// Takes out the blocks inside the block of `order` at `first`, or the one that contains it.
    pub(super) fn take_blocks_in(&mut self, first: u32, order: u32) -> Vec<(u32, u32)> {
        let is_part =
            |block: &mut (u32, u32)| contains((first, order), block.0) || contains(*block, first);
        self.blocks.extract_if(.., is_part).collect()
    }

    /// Takes out the block that was added last.
    pub(super) fn take_last(&mut self) -> Option<(u32, u32)> {
        self.blocks.pop()
    }

    /// Records that a free is withheld, and returns `true`, unless `max` before it were.
    pub(super) fn withhold(&mut self, max: u32) -> bool {
        let is_withheld = self.withheld < max;
        self.withheld = if is_withheld { self.withheld + 1 } else { 0 };
        is_withheld
    }

    /// Records that `missing` smallest blocks of the range are neither held nor free.
    pub(super) fn record_missing(&mut self, missing: u64) {
        if missing < self.missing_min {
            self.missing_min = missing;
            self.frees_in_vain = 0;
        }
    }

    /// Records a free. Returns the number of frees in a row that brought the reservation no nearer
    /// to its end.
    pub(super) fn record_free(&mut self) -> u64 {
        self.frees_in_vain += 1;
        self.frees_in_vain
    }
}

/// Returns `true` if the smallest block `first` lies in the block `(first, order)`.
fn contains((start, order): (u32, u32), first: u32) -> bool {
    first >> order == start >> order
}

/// The parts of a free block: at most one of each order, as the tightest serves first.
pub(super) struct FreeParts {
    /// A mask of the orders of which there is a part.
    orders: u32,
    firsts: [u32; u32::BITS as usize],
}

impl FreeParts {
    /// Makes the one part that is the block of `order` around `min_block`.
    pub(super) fn of_block(min_block: u32, order: u32) -> FreeParts {
        let mut parts = FreeParts { orders: 0, firsts: [0; u32::BITS as usize] };
        parts.add(min_block >> order << order, order);
        parts
    }

    fn add(&mut self, first: u32, order: u32) {
        debug_assert!(self.orders & 1 << order == 0, "two parts of order {order}");
        self.orders |= 1 << order;
        self.firsts[order as usize] = first;
    }

    /// Returns the order of the largest part.
    pub(super) fn largest(&self) -> Option<u32> {
        self.orders.checked_ilog2()
    }

    /// Returns the place for a block of `order` in the tightest part. There is one.
    pub(super) fn tightest(&self, order: u32) -> u32 {
        self.firsts[(self.orders >> order << order).trailing_zeros() as usize]
    }

    /// Takes the block of `order` at its [`tightest`](Self::tightest) place.
    pub(super) fn take(&mut self, order: u32) {
        let part = (self.orders >> order << order).trailing_zeros();
        let first = self.firsts[part as usize];
        self.orders &= !(1 << part);
        for rest in order..part {
            self.add(first + (1 << rest), rest);
        }
    }

    /// Returns the parts: first smallest block, and order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let orders = (0..u32::BITS).filter(|order| self.orders & 1 << order != 0);
        orders.map(|order| (self.firsts[order as usize], order))
    }
}
