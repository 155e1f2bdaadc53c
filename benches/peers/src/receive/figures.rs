//! Which figures this part answers.

use crate::harness::Spread;
use crate::report::{Bound, Figure, OURS, Part};

use super::idle::{FEW, MANY};
use super::systems::System;

const GROUP: &str = "Kernel side";

pub fn add(part: &mut Part) {
    let (bare, tokio) = (System::Bare.name(), System::Tokio.name());
    let mut figure = |case: &str, key: &str, limit: f64, other: &str| {
        let measured = part.ratio((key, OURS), (key, other));
        let of = format!("× {other}");
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), &of, measured));
    };
    for connections in [64, 512] {
        let case = format!("receive, {connections} connections × 512 B, time per message");
        let key = format!("drain-{connections}x512");
        figure(&case, &key, 1.05, bare);
        figure(&case, &key, 0.90, tokio);
    }
    for connections in [64, 512] {
        let case =
            format!("the same, dropped on another thread, {connections} connections × 512 B");
        let key = format!("handed-drain-{connections}x512");
        let measured = part.ratio((&key, OURS), (&key, tokio));
        let of = format!("× {tokio}");
        part.figures.push(Figure::new(GROUP, &case, Bound::Shown, &of, measured));
    }
    let mut figure = |case: &str, key: &str, limit: f64, other: &str| {
        let measured = part.ratio((key, OURS), (key, other));
        let of = format!("× {other}");
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), &of, measured));
    };
    figure("user-space instructions per message", "instructions", 0.35, tokio);

    for (case, row, limit) in [
        ("heap allocations per message as `Bytes`", OURS, 1.0),
        ("heap allocations per message as `ArenaBytes`", "uring-arena, ArenaBytes", 0.0),
    ] {
        let measured = part.row("heap", row).and_then(|row| row.spread);
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), "", measured));
    }

    // What a connection adds: everything that the pool holds anyway falls out of the difference.
    let held =
        |key: &str| part.row(key, OURS).and_then(|row| row.spread).map(|spread| spread.median);
    let each = held(&format!("idle-{MANY}")).zip(held(&format!("idle-{FEW}")));
    let each = each.map(|(many, few)| (many - few) * 1_048_576.0 / (MANY - FEW) as f64);
    let each = each.and_then(|bytes| Spread::of(&[bytes]));
    let case = "memory per connection with 10,000 idle (a receive buffer would be 4096 B)";
    part.figures.push(Figure::new(GROUP, case, Bound::AtMost(512.0), "B", each));
}
