//! Each case to each contender that suits it.

use crate::harness::{Contender, Effort, Progress, pin_to_core};
use crate::report::{Part, Question};

use super::cases::{self, Case};
use super::memory::{Alligator, Heap, Memory, Offsets};
use super::ours::Ours;
use super::{figures, fragmentation};

const INTRODUCTION: &str = "\
64 MiB, smallest block 256 B, unless the case says otherwise; nanoseconds of processor time per claim and \
drop on one pinned thread. The `offset-allocator` \
stands behind a mutex and counts in units of 256 B; its blocks hold an `Arc`, as any that may outlive their arena must.";

pub fn run(effort: Effort) -> Part {
    pin_to_core(0);
    let groups = cases::groups(effort);
    let progress = Progress::begin("buddy", groups.len() + 1);
    let mut part = Part::new("buddy", "Variable sizes", INTRODUCTION, effort);
    for group in groups {
        progress.step(&group[0].title());
        let question = |case: Case| Question {
            key: case.key(),
            title: case.title(),
            contenders: contenders(case),
        };
        part.ask(group.into_iter().map(question).collect(), effort);
    }
    progress.step("fragmentation");
    fragmentation::add(&mut part, effort);
    figures::add(&mut part);
    part
}

/// The same work on each number of threads, with keys of their own.
pub fn by_threads(counts: &[usize]) -> Vec<Question> {
    let cases = counts.iter().map(|&count| Case::Threads { count });
    let question = |case: Case| Question {
        key: format!("buddy-{}", case.key()),
        title: format!("Buddy mode, {}", case.title()),
        contenders: contenders(case),
    };
    cases.map(question).collect()
}

fn contenders(case: Case) -> Vec<Contender<'static>> {
    let mut list = Vec::new();
    add::<Ours>(&mut list, case);
    add::<Alligator>(&mut list, case);
    add::<Heap>(&mut list, case);
    add::<Offsets>(&mut list, case);
    list
}

fn add<M: Memory>(list: &mut Vec<Contender<'static>>, case: Case) {
    if case.suits::<M>() {
        list.push(Contender {
            name: M::NAME.into(),
            note: M::NOTE.into(),
            work: case.prepare::<M>(),
        });
    }
}
