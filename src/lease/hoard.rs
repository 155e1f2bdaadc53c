//! Memory held together for a large block that small ones keep passing over.
//!
//! Small blocks that come and go never leave a large one's room empty at once. So when the oldest
//! seat that waits for a block of several units has been passed over often enough, one place of its
//! size is chosen, around the block that came back just then, and from there on nothing that comes
//! back inside that place is given to others. Every unit of it comes back once at most, and then
//! the place is empty. Everywhere else small blocks are served as before: they lose the one place
//! that the large block is entitled to, and never more than half of the arena: there is no hoard
//! for all of it.

/// Frees that may pass over the oldest seat before memory is held for it.
pub(super) const PASSES_MAX: u32 = 16;

/// Orders below the arena's largest that no hoard is made for.
pub(super) const ORDERS_BELOW_MAX: u32 = 1;

/// Invariant: the pieces lie in the place, are claimed in the books, have no lease, and are `units`
/// units long.
pub(super) struct Hoard {
    pub(super) ticket: u64,
    pub(super) order: u32,
    /// The first unit of the place.
    pub(super) first: u32,
    pieces: Vec<(u32, u32)>,
    units: u64,
    /// Frees elsewhere since the hoard was made.
    frees_elsewhere: u64,
}

impl Hoard {
    /// A hoard for a seat that waits for a block of `order`, in the place around `unit`.
    pub(super) fn around(unit: u32, order: u32, ticket: u64) -> Hoard {
        Hoard {
            ticket,
            order,
            first: unit >> order << order,
            pieces: Vec::new(),
            units: 0,
            frees_elsewhere: 0,
        }
    }

    pub(super) fn covers(&self, first: u32, order: u32) -> bool {
        order < self.order && first >> self.order == self.first >> self.order
    }

    /// Keeps a block that came back; gives the units kept so far.
    pub(super) fn keep(&mut self, first: u32, order: u32) -> u64 {
        debug_assert!(self.covers(first, order));
        self.pieces.push((first, order));
        self.units += 1 << order;
        self.units
    }

    /// Notes a free outside of the place; gives how many there were.
    pub(super) fn note_free_elsewhere(&mut self) -> u64 {
        self.frees_elsewhere += 1;
        self.frees_elsewhere
    }

    /// All pieces, to be freed by the caller.
    pub(super) fn take_pieces(&mut self) -> Vec<(u32, u32)> {
        self.units = 0;
        std::mem::take(&mut self.pieces)
    }
}
