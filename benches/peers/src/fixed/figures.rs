//! Which figures this part answers.

use crate::report::{Bound, Figure, OURS, Part};

use super::heap;
use super::peers::{Alligator, Bare, Heap};
use super::pool::Pool;

/// Our line that never leaves the arena.
pub const OURS_IN_ARENA: &str = "uring-arena, ArenaBytes";

const GROUP: &str = "Fixed arena";
const OF_PEER: &str = "× arena-alligator 0.7";

pub fn add(part: &mut Part) {
    let peer = Alligator::NAME;
    let mut figure = |case: &str, key: &str, limit: f64| {
        let measured = part.ratio((key, OURS), (key, peer));
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), OF_PEER, measured));
    };
    figure("claim + drop", "claim-drop", 0.30);
    figure("claim, 64 B, freeze to `Bytes`, drop", "round-trip-64", 0.35);
    figure("the same, 1000 of 1024 slots held", "held-1000", 0.40);
    figure("the same, 2 threads", "threads-2", 0.15);
    figure("the same, 4 threads", "threads-4", 0.15);
    figure("64 × `put_u32`, freeze, drop", "puts", 0.25);
    figure("4096 B payload, freeze, drop", "round-trip-4096", 0.65);
    figure("claimed here, dropped on another thread (1 → 1)", "hand-over-1", 0.50);

    let mut against =
        |case: &str, ours: (&str, &str), other: (&str, &str), limit: f64, of: &str| {
            let measured = part.ratio(ours, other);
            part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), of, measured));
        };
    let trip = "round-trip-64";
    let round = "claim, 64 B, freeze to `Bytes`, drop";
    against(round, (trip, OURS), (trip, Heap::NAME), 0.45, "× `BytesMut::with_capacity(4096)`");
    against(round, (trip, OURS), (trip, Bare::NAME), 1.5, "× bare `Bytes::from_owner`");
    let scaling = "claim, 64 B, freeze, drop: 2 threads beside 1";
    against(scaling, ("threads-2", OURS), ("threads-1", OURS), 1.10, "× our own 1 thread");
    let inside = "claim, 64 B, `ArenaBytes`, drop";
    against(inside, (trip, OURS_IN_ARENA), (trip, peer), 0.17, "× arena-alligator's `Bytes`");

    for (case, row, limit) in [
        ("heap allocations per `Bytes` round trip", OURS, 1.0),
        ("the same, `ArenaBytes`", OURS_IN_ARENA, 0.0),
    ] {
        let measured = part.row(heap::KEY, row).and_then(|row| row.spread);
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), "", measured));
    }
}
