//! Memory reserved for a large block that small ones keep bypassing.
//!
//! Small blocks that come and go never leave the range of a large one empty at once. So when the
//! oldest waiter for a large block was bypassed often enough, one range of its size is reserved:
//! the range around the block that was freed just then. From there on no block that is freed inside
//! the range is given to others. Each of its smallest blocks is freed once at most, and then the
//! range is empty. Everywhere else small blocks are served as before: they lose one range, and
//! never more than half of the arena, because nothing is reserved for a block of the whole arena.

/// The number of frees that may bypass the oldest waiter before memory is reserved for it.
pub(super) const BYPASS_MAX: u32 = 16;

/// The number of largest orders for which nothing is reserved.
pub(super) const ORDERS_WITHOUT: u32 = 1;

/// The memory that is reserved for one waiter: blocks inside one range.
// Invariant: `blocks` lie in the range, are claimed in the allocator, have no lease, and are
// `min_blocks` smallest blocks long together.
pub(super) struct Reservation {
    /// The ticket of the waiter.
    pub(super) ticket: u64,
    pub(super) order: u32,
    /// The first smallest block of the range.
    pub(super) first: u32,
    blocks: Vec<(u32, u32)>,
    min_blocks: u64,
    /// The number of frees outside of the range since the reservation was made.
    frees_elsewhere: u64,
}

impl Reservation {
    /// Reserves the range of `order` around `min_block` for the waiter with `ticket`.
    pub(super) fn around(min_block: u32, order: u32, ticket: u64) -> Reservation {
        Reservation {
            ticket,
            order,
            first: min_block >> order << order,
            blocks: Vec::new(),
            min_blocks: 0,
            frees_elsewhere: 0,
        }
    }

    /// Returns `true` if the block is smaller than the range and lies in it.
    pub(super) fn covers(&self, first: u32, order: u32) -> bool {
        order < self.order && first >> self.order == self.first >> self.order
    }

    /// Adds a block that was freed. Returns the number of smallest blocks reserved so far.
    pub(super) fn add(&mut self, first: u32, order: u32) -> u64 {
        debug_assert!(self.covers(first, order));
        self.blocks.push((first, order));
        self.min_blocks += 1 << order;
        self.min_blocks
    }

    /// Records a free outside of the range. Returns how many there were.
    pub(super) fn record_free_elsewhere(&mut self) -> u64 {
        self.frees_elsewhere += 1;
        self.frees_elsewhere
    }

    /// Takes all blocks out, to be freed by the caller.
    pub(super) fn take_blocks(&mut self) -> Vec<(u32, u32)> {
        self.min_blocks = 0;
        std::mem::take(&mut self.blocks)
    }
}
