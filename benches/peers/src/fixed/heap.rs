//! How often does a message go to the heap?

use std::io;

use crate::harness::{Allocator, Child, Progress, Sample, heap_allocations, serve};
use crate::report::{Comparison, Part, Row};

use super::by_hand::{LockedList, Queue};
use super::cases::Case;
use super::ours::{Ours, OursInArena};
use super::peers::{Alligator, Bare, Heap};
use super::pool::Pool;

pub const KEY: &str = "heap";
const CASE: Case = Case::RoundTrip { bytes: 64 };

type Count = fn() -> io::Result<()>;

/// The contenders by name: the child is told which one to count.
const COUNTED: [(&str, Count); 7] = [
    (Ours::NAME, count::<Ours>),
    (OursInArena::NAME, count::<OursInArena>),
    (Alligator::NAME, count::<Alligator>),
    (Heap::NAME, count::<Heap>),
    (Queue::NAME, count::<Queue>),
    (LockedList::NAME, count::<LockedList>),
    (Bare::NAME, count::<Bare>),
];

pub fn add(part: &mut Part, progress: &Progress) {
    let mut rows = Vec::new();
    for (name, _) in COUNTED {
        let counted = Child::start(&["core", KEY, name], Allocator::Counting);
        let counted = counted.and_then(|mut child| child.run(10_000));
        match counted {
            Ok(sample) => {
                rows.push(Row::new(name, "", vec![sample.get("heap").unwrap_or(f64::NAN)]))
            }
            Err(error) => progress.aloud(&format!("left out: heap allocations of {name}: {error}")),
        }
    }
    let title = format!("{}: heap allocations", CASE.title());
    part.push(Comparison::new(KEY, &title, "number", rows));
}

/// The child's side.
pub fn work(name: &str) -> io::Result<()> {
    let counted = COUNTED.iter().find(|counted| counted.0 == name);
    let (_, count) = counted.ok_or_else(|| io::Error::other("no such contender"))?;
    count()
}

fn count<P: Pool>() -> io::Result<()> {
    let mut work = CASE.prepare::<P>();
    work(1000);
    serve(|times| {
        let before = heap_allocations();
        work(times);
        Ok(Sample::default().with("heap", (heap_allocations() - before) as f64 / times as f64))
    })
}
