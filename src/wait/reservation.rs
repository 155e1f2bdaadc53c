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
//! waiter is lent a block. And after a number of frees the reservation is given up, for that of the
//! next waiter.

/// The number of frees that may bypass the oldest waiter before memory is reserved for it.
pub(super) const BYPASS_MAX: u32 = 16;

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
    /// `true` if the last free in the range was withheld from a waiter that it could serve.
    is_withheld: bool,
    /// The number of frees since the reservation was made; those outside of the range count twice.
    frees: u64,
}

impl Reservation {
    /// Reserves the range of `order` around `min_block` for the waiter with `ticket`.
    pub(super) fn around(min_block: u32, order: u32, ticket: u64) -> Reservation {
        let first = min_block >> order << order;
        Reservation { ticket, order, first, blocks: Vec::new(), is_withheld: false, frees: 0 }
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

    /// Records that a free is withheld. Returns `true` if the one before it was too: then it is
    /// not.
    pub(super) fn is_withheld_twice(&mut self) -> bool {
        self.is_withheld = !self.is_withheld;
        !self.is_withheld
    }

    /// Records a free of the block at `first`. Returns half the number of frees so far, where those
    /// outside of the range count twice.
    pub(super) fn record_free(&mut self, first: u32) -> u64 {
        self.frees += if contains((self.first, self.order), first) { 1 } else { 2 };
        self.frees / 2
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
