//! Where the slots of an arena are, as one driver sees it.

use super::Driver;
use crate::arena::{OnRing, SlotStates};
use crate::uring::{Registrable, handle_of};

impl Driver {
    /// Where the slots of `arena` are, or the smallest blocks of a buddy arena. Walks over all of
    /// them: for monitoring, not for hot paths.
    ///
    /// What other drivers' rings and operations have counts as held, or frozen. [`SlotStates`] says
    /// how exact the numbers are.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let buffer = arena.allocate()?;
    /// let slots = driver.slot_states(&arena);
    /// assert_eq!((slots.free, slots.published, slots.held), (7, 8, 1));
    /// assert_eq!(slots.total(), 16);
    /// # drop(buffer);
    /// # let _ = ring;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slot_states(&self, arena: &impl Registrable) -> SlotStates {
        let handle = handle_of(arena);
        let published = sorted(
            self.rings
                .iter()
                .filter(|ring| ring.buffers.arena().is_same(handle))
                .flat_map(|ring| ring.buffers.owned_slots()),
        );
        let in_flight = sorted(
            self.transfers
                .addresses_running()
                .filter_map(|address| handle.index_of_address(address)),
        );
        SlotStates::of(handle, |owned| {
            if published.binary_search(&owned.first).is_ok() {
                return Some(OnRing::Published);
            }
            // An operation may begin anywhere in its block.
            let next = in_flight.partition_point(|&unit| unit < owned.first);
            let is_in_flight = in_flight
                .get(next)
                .is_some_and(|&unit| u64::from(unit - owned.first) < owned.min_blocks);
            is_in_flight.then_some(OnRing::InFlight)
        })
    }
}

fn sorted(units: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut units: Vec<u32> = units.collect();
    units.sort_unstable();
    units
}
