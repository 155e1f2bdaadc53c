//! What does waiting cost where the arena is very large? A million slots are 32,768 words: the
//! first waiter sets a bit in each of them.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use uring_arena::FixedArena;

use crate::harness::Effort;
use crate::report::{Comparison, Part, Row};

const SLOTS: usize = 1 << 20;

pub fn add(part: &mut Part, effort: Effort) {
    let [mut refused, mut first, mut next] = [const { Vec::new() }; 3];
    for _ in 0..effort.choose(3, 11) {
        let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
        let arena =
            FixedArena::with_slot_capacity(nz(SLOTS), nz(8)).build().expect("the arena builds");
        let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
        assert_eq!(held.len(), SLOTS);
        let wait = || arena.allocate_timeout(Duration::ZERO).is_ok();
        refused.push(microseconds(|| arena.allocate().is_ok()));
        first.push(microseconds(wait));
        next.push(microseconds(wait));
    }
    let rows = vec![
        Row::new("refused", "`allocate`", refused),
        Row::new(
            "the first waiter",
            "`allocate_timeout` of no time: in line, and out again",
            first,
        ),
        Row::new("the next waiter", "the bits are set", next),
    ];
    let title = format!("A full arena of {SLOTS} slots: claims that find nothing");
    part.push(Comparison::new("many-words", &title, "µs", rows));
}

/// Of a claim that is answered with no.
fn microseconds(claim: impl Fn() -> bool) -> f64 {
    let begin = Instant::now();
    assert!(!claim(), "no slot is free");
    begin.elapsed().as_secs_f64() * 1e6
}
