//! The part `core`: its cases, contenders and plots.

use std::marker::PhantomData;
use std::sync::Mutex;

use crossbeam_queue::ArrayQueue;

use crate::measure::Age;
use crate::report::{OURS, Part, Plot};
use crate::run::{Comparison, Contender, Effort, bind};

use super::by_hand::ByHand;
use super::cases::{Fixed, OnMimalloc};
use super::pool::Pool;
use super::pools::{Alligator, Bare, Heap, Ours, OursInArena};

const INTRODUCTION: &str = "\
1024 slots × 4096 B, aligned to 4096, every page touched before the first measurement; \
nanoseconds of processor time per operation on one pinned thread unless the case says otherwise. \
Freeze and drop are counted. The lists kept by hand hold an `Arc` in each slot, as any owner of a \
`Bytes` that may outlive its pool must.";

const CONTENDERS: [&dyn Contender<Fixed>; 8] = [
    &PhantomData::<Ours>,
    &PhantomData::<OursInArena>,
    &PhantomData::<Alligator>,
    &PhantomData::<Heap>,
    &OnMimalloc,
    &PhantomData::<ByHand<ArrayQueue<u32>>>,
    &PhantomData::<ByHand<Mutex<Vec<u32>>>>,
    &PhantomData::<Bare>,
];

pub fn part(effort: Effort) -> Part {
    let held = effort.choose(&[0, 768, 1000][..], &[0, 256, 512, 768, 922, 1000, 1023]);
    let droppers = effort.choose(&[1, 2][..], &[1, 2, 3, 4]);
    let mut groups = vec![vec![Fixed::ClaimDrop]];
    groups.extend([64, 256, 1024, 4096].map(|bytes| vec![Fixed::RoundTrip(bytes)]));
    groups.extend([Fixed::Handed, Fixed::Puts].map(|case| vec![case]));
    groups.push(held.iter().copied().map(Fixed::Held).collect());
    groups.push([1, 2, 4, 8].map(Fixed::Threads).to_vec());
    groups.extend(droppers.iter().map(|&droppers| vec![Fixed::HandOver(droppers)]));
    groups.extend([1, 2].map(|count| Age::ALL.map(|age| Fixed::Aged(age, count)).to_vec()));
    groups.extend([Fixed::Full, Fixed::Batch, Fixed::Spill].map(|case| vec![case]));
    groups.extend([64, 4096].map(|bytes| vec![Fixed::Zero(bytes)]));
    groups.extend([Fixed::Drain, Fixed::Heap].map(|case| vec![case]));
    let bind =
        |group: Vec<Fixed>| group.into_iter().map(|case| bind(case, CONTENDERS, effort)).collect();
    let groups = groups.into_iter().map(bind).collect();
    Part { plots: &[THREADS, FILL], ..Part::new("core", "The fixed arena", INTRODUCTION, groups) }
}

/// Binds the same work on each number of threads.
pub fn by_threads(counts: &[usize], effort: Effort) -> Vec<Comparison> {
    counts.iter().map(|&count| bind(Fixed::Threads(count), CONTENDERS, effort)).collect()
}

const LINES: &[&str] =
    &[OURS, Alligator::NAME, Heap::NAME, "ArrayQueue of slots", "Mutex<Vec> of slots"];

const THREADS: Plot = Plot {
    file: "cost-by-threads",
    title: "Claim, 64 B, freeze, drop: core time by threads",
    x_label: "threads",
    y_label: "ns per operation",
    key: ("threads-", ""),
    metric: "ns",
    lines: LINES,
    is_logarithmic: true,
};

const FILL: Plot = Plot {
    file: "cost-by-fill",
    title: "Claim, 64 B, freeze, drop: cost by slots held",
    x_label: "slots held of 1024",
    key: ("held-", ""),
    is_logarithmic: false,
    ..THREADS
};
