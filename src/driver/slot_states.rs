//! Where the slots of an arena are, as one driver sees it.

use super::Driver;
use crate::FixedArena;

/// The slots of one arena by state: they add up to its number of slots, unless other threads claim or free meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SlotStates {
    /// Nobody has them.
    pub free: usize,
    /// In this driver's buffer rings: the kernel may receive into them. A slot of an incremental ring may hold messages besides.
    pub published: usize,
    /// In reads, writes and sends of this driver that the kernel has.
    pub in_flight: usize,
    /// With the program, as buffers or as bytes; other drivers' are counted here too.
    pub held: usize,
    /// Lost for good.
    pub quarantined: usize,
}

impl Driver {
    /// Where the slots of `arena` are. Walks over all of them: for monitoring, not for hot paths.
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
    /// let ring = driver.buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let buffer = arena.allocate()?;
    /// let slots = driver.slots(&arena);
    /// assert_eq!((slots.free, slots.published, slots.held), (7, 8, 1));
    /// # drop(buffer);
    /// # let _ = ring;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slots(&self, arena: &FixedArena) -> SlotStates {
        let metrics = arena.metrics();
        let live = metrics.bytes_live / arena.slot_capacity();
        let ours = self.rings.iter().filter(|ring| ring.buffers.arena().is_same(arena.handle()));
        let published = ours.map(|ring| ring.buffers.slot_count()).sum();
        let start = arena.handle().region.start().addr().get();
        let mut in_flight: Vec<usize> = self
            .transfers
            .addresses_running()
            .filter_map(|address| address.checked_sub(start))
            .map(|distance| distance / arena.slot_capacity())
            .filter(|&slot| slot < arena.slot_count())
            .collect();
        // One slot may be sent several times at once.
        in_flight.sort_unstable();
        in_flight.dedup();
        let quarantined = metrics.quarantined as usize;
        SlotStates {
            free: arena.slot_count() - live,
            published,
            in_flight: in_flight.len(),
            held: live.saturating_sub(published + in_flight.len() + quarantined),
            quarantined,
        }
    }
}
