//! The memory that every contender hands out, as it would be used against each.

use std::num::NonZeroUsize;

/// The demands of a case on the memory, the same for all contenders.
#[derive(Clone, Copy)]
pub struct Setup {
    pub slots: usize,
    pub slot_bytes: usize,
    /// No byte of an earlier owner may be visible.
    pub zero: bool,
    /// A write past the end moves to the heap.
    pub spill: bool,
}

impl Setup {
    /// The usual setup: 1024 × 4096 bytes, aligned to 4096, every page touched beforehand.
    pub const USUAL: Self = Self { slots: 1024, slot_bytes: 4096, zero: false, spill: false };
}

/// The form in which a driver hands received messages out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Received {
    AsBytes,
    InPlace,
}

/// One contender. A clone is a thread's handle on the same memory.
///
/// The functions are inlined always, and values are shown to `black_box` by reference. Otherwise a
/// wrapper's call, or a move of what was just written, would be measured as the contender's: a
/// store that cannot be forwarded costs as much as an atomic.
pub trait Pool: Clone + Send + Sync + 'static {
    type Slot: Send + 'static;
    type Frozen: AsRef<[u8]> + Send + 'static;
    /// The error of a pool without a free slot, as it is: a conversion would be measured.
    type Refused: std::fmt::Debug;

    const NAME: &'static str;
    const NOTE: &'static str = "";
    /// The pool has so many slots and says so when they are gone.
    const BOUNDED: bool = true;
    const SPILLS: bool = true;
    const ZEROES: bool = true;
    /// Slots differ: they can be held, and dropped on another thread.
    const HAS_SLOTS: bool = true;
    /// The driver that receives into the slots, if there is one.
    const DRAINS: Option<Received> = None;

    fn new(setup: Setup) -> Self;
    fn claim(&self) -> Result<Self::Slot, Self::Refused>;
    fn put(slot: &mut Self::Slot, payload: &[u8]);
    fn put_number(slot: &mut Self::Slot, number: u32);
    fn freeze(slot: Self::Slot) -> Self::Frozen;

    /// Claims several at once, in one call where the contender has one.
    fn claim_many(&self, count: usize, into: &mut Vec<Self::Slot>) {
        into.extend((0..count).map_while(|_| self.claim().ok()));
    }
}

pub fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}
