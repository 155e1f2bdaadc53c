//! Each case to each contender that can do it.

use std::io;

use crate::harness::{
    Allocator, Child, Contender, Effort, Progress, Sample, Work, pin_to_core, serve,
};
use crate::report::{Part, Question};

use super::by_hand::{LockedList, Queue};
use super::cases::{self, Case};
use super::ours::{Ours, OursInArena};
use super::peers::{Alligator, Bare, Heap};
use super::pool::Pool;
use super::{figures, heap};

const INTRODUCTION: &str = "\
1024 slots × 4096 B, aligned to 4096, every page touched before the first measurement; nanoseconds of processor \
time per operation on one pinned thread unless the case says otherwise. Freeze and drop are counted. The lists kept by hand hold an `Arc` in each slot, as any \
owner of a `Bytes` that may outlive its pool must.";

/// The name of the `BytesMut` line whose process runs on mimalloc.
const MIMALLOC: &str = "BytesMut, mimalloc";

/// Measures every case with every contender that can do it.
pub fn run(effort: Effort) -> Part {
    pin_to_core(0);
    let groups = cases::groups(effort);
    let progress = Progress::begin("core", groups.len());
    let mut part = Part::new("core", "The fixed arena", INTRODUCTION, effort);
    for group in groups {
        progress.step(&group[0].title());
        part.ask(group.into_iter().map(|case| question(case, &progress)).collect(), effort);
    }
    heap::add(&mut part, &progress);
    figures::add(&mut part);
    part
}

/// The same work on each number of threads.
pub fn by_threads(counts: &[usize], progress: &Progress) -> Vec<Question> {
    let cases = counts.iter().map(|&count| Case::Threads { count });
    cases.map(|case| question(case, progress)).collect()
}

fn question(case: Case, progress: &Progress) -> Question {
    Question { key: case.key(), title: case.title(), contenders: contenders(case, progress) }
}

/// The child's side of the mimalloc line.
pub fn work(words: &[String]) -> io::Result<()> {
    pin_to_core(0);
    if let [key, name] = words
        && key == heap::KEY
    {
        return heap::work(name);
    }
    let case = words.first().and_then(|key| Case::parse(key));
    let case = case.ok_or_else(|| io::Error::other("no such case"))?;
    let mut work = case.prepare::<Heap>();
    serve(|times| Ok(Sample::default().with("nanos", work(times).as_nanos() as f64)))
}

fn contenders(case: Case, progress: &Progress) -> Vec<Contender<'static>> {
    let mut list = Vec::new();
    add::<Ours>(&mut list, case);
    add::<OursInArena>(&mut list, case);
    add::<Alligator>(&mut list, case);
    add::<Heap>(&mut list, case);
    if case.suits::<Heap>() {
        match mimalloc(case) {
            Ok(work) => list.push(Contender {
                name: MIMALLOC.into(),
                note: "a process of its own, rounds interleaved".into(),
                work,
            }),
            Err(error) => progress.aloud(&format!("left out: {MIMALLOC}: {error}")),
        }
    }
    add::<Queue>(&mut list, case);
    add::<LockedList>(&mut list, case);
    add::<Bare>(&mut list, case);
    list
}

fn add<P: Pool>(list: &mut Vec<Contender<'static>>, case: Case) {
    if case.suits::<P>() {
        list.push(Contender {
            name: P::NAME.into(),
            note: P::NOTE.into(),
            work: case.prepare::<P>(),
        });
    }
}

fn mimalloc(case: Case) -> io::Result<Work<'static>> {
    let mut child = Child::start(&["core", &case.key()], Allocator::Mimalloc)?;
    Ok(Box::new(move |times| {
        let nanos = child.run(times).ok().and_then(|sample| sample.get("nanos"));
        std::time::Duration::from_nanos(nanos.unwrap_or(f64::NAN) as u64)
    }))
}
