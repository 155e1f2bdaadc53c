//! Does a claim get dearer when most slots are held?

use crate::harness::Work;

use super::pool::{Pool, Setup};
use super::round_trip::round_trips;

pub fn prepare<P: Pool>(slots: usize) -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let held = hold_scattered(&pool, slots);
    Box::new(move |times| {
        let taken = round_trips(&pool, &[7; 64], times);
        // The held slots live as long as the work.
        assert_eq!(held.len(), slots);
        taken
    })
}

/// Holds so many of 1024 slots that the free ones lie anywhere, as after hours of service,
/// and not in one run at the end.
fn hold_scattered<P: Pool>(pool: &P, slots: usize) -> Vec<P::Slot> {
    let mut held: Vec<_> = (0..1024).map_while(|_| pool.claim().ok()).collect();
    assert_eq!(held.len(), 1024, "every slot can be claimed");
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    while held.len() > slots {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        held.swap_remove((state % held.len() as u64) as usize);
    }
    held
}
