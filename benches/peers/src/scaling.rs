//! The cases that threads share, on 1, 2, 4, … threads up to all cores, and twice as many.
//!
//! Not among the usual parts: made for a host with many cores, by `scripts/scaling`. The model that
//! predicts it is in `docs/cost-model.md`. Its inputs are measured here too: an atomic of one's
//! own, and a line that passes between cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::measure::{Padded, Team, core_count, pin_to_core};
use crate::report::{OURS, Part, Plot};
use crate::run::{Answer, Case, Effort, Method, Sample, Work, bind};
use crate::{buddy, fixed};

const INTRODUCTION: &str = "\
Core time per operation: processor time of all threads ÷ operations of all threads. What scales \
perfectly shows one number throughout; what serialises shows a number that grows with the threads.";

pub fn part(effort: Effort) -> Part {
    let counts = counts();
    let atomics = counts.iter().map(|&count| bind(Atomic::Threads(count), &LINES, effort));
    let mut buddies = buddy::by_threads(&counts, effort);
    for comparison in &mut buddies {
        comparison.key = format!("buddy-{}", comparison.key);
        comparison.title = format!("Buddy mode, {}", comparison.title);
    }
    let groups = vec![
        vec![bind(Atomic::Passed, &LINES, effort)],
        atomics.collect(),
        fixed::by_threads(&counts, effort),
        buddies,
    ];
    Part {
        plots: &[ATOMICS, FIXED, BUDDY],
        ..Part::new("scaling", "Scaling", INTRODUCTION, groups)
    }
}

/// Returns powers of two up to the cores, the cores, and twice as many.
fn counts() -> Vec<usize> {
    let cores = core_count();
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2));
    doubled.take_while(|&count| count < cores).chain([cores, 2 * cores]).collect()
}

#[derive(Clone, PartialEq)]
enum Atomic {
    /// A line written by two threads in turn: the time until another core has it.
    Passed,
    /// One read-modify-write on each of so many threads.
    Threads(usize),
}

impl Case for Atomic {
    fn label(&self) -> String {
        match self {
            Self::Passed => "line-passed: One cache line passed to another core".into(),
            Self::Threads(count) => {
                format!("atomic-threads-{count}: One atomic read-modify-write, {count} threads")
            }
        }
    }

    fn method(&self, effort: Effort) -> Method {
        Method { micro: false, ..Method::micro(effort) }
    }
}

static LINES: [Answer<Atomic>; 4] = [
    Answer {
        suits: |case, _| *case != Atomic::Passed,
        ..Answer::new("on a line of its own", "", |case, _| Ok(bump(case, false)))
    },
    Answer {
        suits: |case, _| *case != Atomic::Passed,
        ..Answer::new("on one line for all", "", |case, _| Ok(bump(case, true)))
    },
    Answer {
        suits: |case, _| *case == Atomic::Passed,
        ..Answer::new("to the next core", "", |_, _| Ok(pass(1)))
    },
    Answer {
        suits: |case, _| *case == Atomic::Passed && core_count() > 2,
        ..Answer::new("to the last core", "", |_, _| Ok(pass(core_count() - 1)))
    },
];

fn pass(other: usize) -> Work {
    let team = Team::new(2);
    Box::new(move |times| {
        let line = Padded(AtomicU64::new(0));
        let spent = team.run(move |thread| {
            if thread == 1 {
                pin_to_core(other);
            }
            let mut turn = thread as u64;
            while turn < times {
                // Acquire and Release: the turn goes over with the line.
                while line.0.load(Ordering::Acquire) != turn {
                    std::hint::spin_loop();
                }
                line.0.store(turn + 1, Ordering::Release);
                turn += 2;
            }
        });
        Ok(Sample::nanos(spent.wall(), times))
    })
}

fn bump(case: &Atomic, shared: bool) -> Work {
    let &Atomic::Threads(count) = case else { return pass(1) };
    let team = Team::new(count);
    let lines: Arc<[Padded<AtomicU64>]> = (0..count).map(|_| Padded(AtomicU64::new(0))).collect();
    Box::new(move |times| {
        let each = times.div_ceil(count as u64);
        let lines = lines.clone();
        let spent = team.run(move |thread| {
            let line = &lines[if shared { 0 } else { thread }];
            for _ in 0..each {
                // Relaxed: only its cost matters.
                line.0.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Sample::nanos(spent.processor, each * count as u64))
    })
}

const ATOMICS: Plot = Plot {
    file: "scaling-atomics",
    title: "One atomic read-modify-write",
    x_label: "threads",
    y_label: "ns of core time per operation",
    key: ("atomic-threads-", ""),
    metric: "ns",
    lines: &["on a line of its own", "on one line for all"],
    is_logarithmic: true,
};

const FIXED: Plot = Plot {
    file: "scaling-fixed",
    title: "Claim, 64 B, freeze, drop",
    key: ("threads-", ""),
    lines: &[OURS, "arena-alligator 0.7", "BytesMut, glibc", "ArrayQueue of slots"],
    ..ATOMICS
};

const BUDDY: Plot = Plot {
    file: "scaling-buddy",
    title: "4096 B from the buddy mode",
    key: ("buddy-threads-", ""),
    lines: &[OURS, "arena-alligator 0.7", "BytesMut, glibc", "offset-allocator"],
    ..ATOMICS
};
