//! What registering an arena costs: by slots, by regions, and once more by cloning.
//!
//! # Safety
//!
//! Nothing is pushed.
#![allow(unsafe_code)]

use std::io;
use std::time::Instant;

use io_uring::IoUring;
use uring_arena::{Backing, FixedArena, RegisterOptions, RegisteredArena, Rung};

use crate::median;

const SLOT_BYTES: usize = 64 << 10;

pub fn compare(rounds: usize, bench: bool) -> io::Result<()> {
    let bytes = if bench { 1 << 30 } else { 4 << 20 };
    for backing in [Backing::Anonymous, Backing::TransparentHuge] {
        let count = (bytes / SLOT_BYTES).try_into().map_err(io::Error::other)?;
        let slot_bytes = SLOT_BYTES.try_into().map_err(io::Error::other)?;
        let arena = FixedArena::with_slot_capacity(count, slot_bytes).alignment(4096).backing(backing);
        measure(&arena.build().map_err(io::Error::other)?, backing, rounds)?;
    }
    Ok(())
}

fn measure(arena: &FixedArena, backing: Backing, rounds: usize) -> io::Result<()> {
    let (ring, second) = (IoUring::new(4)?, IoUring::new(4)?);
    // Slots, regions, a clone of the slots, a clone of the regions.
    let mut ms: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        for (at, rung) in [Rung::Slots, Rung::Regions].into_iter().enumerate() {
            let (first, time) = timed(&ring, arena, rung.into())?;
            ms[at].push(time);
            let options = RegisterOptions::new().rung(Rung::Cloned).clone_of(&first, &ring);
            let (clone, time) = timed(&second, arena, options)?;
            ms[2 + at].push(time);
            clone.unregister(&second).map_err(io::Error::other)?;
            first.unregister(&ring).map_err(io::Error::other)?;
        }
    }
    let ratio =
        |over: &[f64], under: &[f64]| median(over.iter().zip(under).map(|(over, under)| over / under));
    let [slots, regions, cloned_slots, cloned_regions] = &ms;
    println!(
        "registering {} slots of {SLOT_BYTES} B, {backing:?}, {rounds} rounds: slots {:.2} ms, regions {:.2} ms (of slots: {:.3}), \
         clone of slots {:.3} ms (of the first: {:.4}), clone of regions {:.3} ms (of the first: {:.4})",
        arena.slot_count(),
        median(slots.iter().copied()),
        median(regions.iter().copied()),
        ratio(regions, slots),
        median(cloned_slots.iter().copied()),
        ratio(cloned_slots, slots),
        median(cloned_regions.iter().copied()),
        ratio(cloned_regions, regions),
    );
    Ok(())
}

fn timed(
    ring: &IoUring,
    arena: &FixedArena,
    options: RegisterOptions<'_>,
) -> io::Result<(RegisteredArena, f64)> {
    let start = Instant::now();
    // SAFETY: nothing is pushed.
    let registered = unsafe { RegisteredArena::register(ring, arena, options) }.map_err(io::Error::other)?;
    Ok((registered, start.elapsed().as_secs_f64() * 1e3))
}
