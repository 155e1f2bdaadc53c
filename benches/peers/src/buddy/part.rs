//! The part `buddy`: its cases and contenders.

use std::marker::PhantomData;

use crate::measure::Age;
use crate::report::Part;
use crate::run::{Comparison, Contender, Effort, bind};

use super::cases::Buddy;
use super::memory::{Alligator, Heap, Offsets, Ours};

const INTRODUCTION: &str = "\
64 MiB, smallest block 256 B, unless the case says otherwise; nanoseconds of processor time per \
claim and drop on one pinned thread. The `offset-allocator` stands behind a mutex and counts in \
units of 256 B; its blocks hold an `Arc`, as any that may outlive their arena must.";

const CONTENDERS: [&dyn Contender<Buddy>; 4] = [
    &PhantomData::<Ours>,
    &PhantomData::<Alligator>,
    &PhantomData::<Heap>,
    &PhantomData::<Offsets>,
];

pub fn part(effort: Effort) -> Part {
    let percents = effort.choose(&[10, 90][..], &[10, 50, 75, 90]);
    let mut groups: Vec<Vec<Buddy>> =
        [256, 1024, 4096, 16384].map(|bytes| vec![Buddy::Alone(bytes)]).to_vec();
    groups.extend([Buddy::Lengths, Buddy::Sizes].map(|case| vec![case]));
    groups.push([1, 2, 4].map(Buddy::Threads).to_vec());
    groups.push([16, 1024].map(Buddy::Region).to_vec());
    groups.push([16, 1024].map(Buddy::RegionLengths).to_vec());
    groups.push(percents.iter().copied().map(Buddy::Filled).collect());
    let beside = |bytes| [10, 90].map(|percent| Buddy::Beside(bytes, percent)).to_vec();
    groups.extend([256, 4096, 65536].map(beside));
    groups.extend([1, 2].map(|count| Age::ALL.map(|age| Buddy::Aged(age, count)).to_vec()));
    groups.extend([Buddy::Larson, Buddy::Passed, Buddy::Burst].map(|case| vec![case]));
    groups.extend([50, 75, 90].map(|percent| vec![Buddy::Churned(percent)]));
    let bind =
        |group: Vec<Buddy>| group.into_iter().map(|case| bind(case, CONTENDERS, effort)).collect();
    Part::new("buddy", "Variable sizes", INTRODUCTION, groups.into_iter().map(bind).collect())
}

/// Binds the same work on each number of threads.
pub fn by_threads(counts: &[usize], effort: Effort) -> Vec<Comparison> {
    counts.iter().map(|&count| bind(Buddy::Threads(count), CONTENDERS, effort)).collect()
}
