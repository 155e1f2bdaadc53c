//! What is left after long use: the largest free block, and how many blocks of 64 KiB still fit.

use crate::harness::Effort;
use crate::report::{Comparison, Part, Row};

use super::cases::{SMALLEST, TOTAL};
use super::memory::{Alligator, Memory, Offsets};
use super::ours::Ours;
use super::random::Random;

/// What one contender has left.
struct Left {
    largest_kib: f64,
    runs: f64,
}

pub fn add(part: &mut Part, effort: Effort) {
    for percent in [50, 75, 90] {
        let (mut largest, mut runs) = (Vec::new(), Vec::new());
        let mut add = |name: &str, left: Left| {
            largest.push(Row::new(name, "", vec![left.largest_kib]));
            runs.push(Row::new(name, "", vec![left.runs]));
        };
        add(Ours::NAME, left_after::<Ours>(percent, effort));
        add(Alligator::NAME, left_after::<Alligator>(percent, effort));
        add(Offsets::NAME, left_after::<Offsets>(percent, effort));

        let after = format!("after random churn at {percent} % full");
        let key = format!("largest-free-{percent}");
        part.push(Comparison::new(&key, &format!("Largest free block {after}"), "KiB", largest));
        let whole = TOTAL * (100 - percent) / 100 / 65536;
        let title = format!("Blocks of 64 KiB that still fit {after} (at most {whole})");
        part.push(Comparison::new(&format!("runs-{percent}"), &title, "number", runs));
    }
}

/// Claims and drops powers of two at random, never more than so much full, and looks what is left.
fn left_after<M: Memory>(percent: usize, effort: Effort) -> Left {
    let memory = M::new(TOTAL, SMALLEST);
    let (mut held, mut live) = (Vec::new(), 0);
    let mut random = Random::new(31);
    for _ in 0..effort.choose(100_000, 1_000_000) {
        let bytes = random.size();
        if live + bytes <= TOTAL / 100 * percent
            && let Some(block) = memory.claim(bytes)
        {
            live += bytes;
            held.push((block, bytes));
        } else if !held.is_empty() {
            let (block, bytes) = held.swap_remove(random.below(held.len()));
            drop(block);
            live -= bytes;
        }
    }
    // Down from the whole arena, one unit at a time would take too long: powers of two are what is
    // asked for.
    let sizes = (0..).map(|order| TOTAL >> order).take_while(|&bytes| bytes >= SMALLEST);
    let largest = sizes.into_iter().find(|&bytes| memory.claim(bytes).is_some()).unwrap_or(0);
    let runs: Vec<_> = std::iter::from_fn(|| memory.claim(65536)).collect();
    Left { largest_kib: largest as f64 / 1024.0, runs: runs.len() as f64 }
}
