//! How far does it go? The cases that threads share, on 1, 2, 4, … threads up to all cores, and
//! twice as many.
//!
//! Not among the usual parts: made for a host with many cores, by `scripts/scaling`. The model that
//! predicts it is in `docs/cost-model.md`; its inputs, an atomic of one's own and a line that
//! passes between cores, are measured here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Contender, Effort, Progress, Team, Work, core_count, pin_to_core};
use crate::report::{Part, Plot, Question};
use crate::{buddy, fixed};

const INTRODUCTION: &str = "\
Core time per operation: processor time of all threads ÷ operations of all threads. What scales perfectly shows one number throughout; what \
serialises shows a number that grows with the threads.";

pub fn run(effort: Effort) -> Part {
    let counts = counts();
    let progress = Progress::begin("scaling", 3);
    let mut part = Part::new("scaling", "Scaling", INTRODUCTION, effort);
    progress.step("one atomic");
    part.ask(vec![passing()], effort);
    part.ask(counts.iter().map(|&count| atomics(count)).collect(), effort);
    progress.step("the fixed arena");
    part.ask(fixed::by_threads(&counts, &progress), effort);
    progress.step("the buddy mode");
    part.ask(buddy::by_threads(&counts), effort);
    for (file, title, prefix) in [
        ("scaling-atomics", "One atomic read-modify-write", "atomic-threads-"),
        ("scaling-fixed", "Claim, 64 B, freeze, drop", "threads-"),
        ("scaling-buddy", "4096 B from the buddy mode", "buddy-threads-"),
    ] {
        let mut plot = Plot::new(file, title, "threads", "ns of core time per operation");
        plot.lines_from(&part, |key| key.strip_prefix(prefix)?.parse().ok());
        part.plots.push(plot);
    }
    part
}

/// Powers of two up to the cores, the cores, and twice as many.
fn counts() -> Vec<usize> {
    let cores = core_count();
    let mut counts: Vec<_> = std::iter::successors(Some(1), |count| Some(count * 2))
        .take_while(|&c| c < cores)
        .collect();
    counts.extend([cores, 2 * cores]);
    counts
}

/// On a line per thread.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

fn atomics(count: usize) -> Question {
    let contender = |name: &str, shared| Contender {
        name: name.into(),
        note: String::new(),
        work: bump(count, shared),
    };
    Question {
        key: format!("atomic-threads-{count}"),
        title: format!("One atomic read-modify-write, {count} threads"),
        contenders: vec![
            contender("on a line of its own", false),
            contender("on one line for all", true),
        ],
    }
}

/// What it takes until another core has the line: the nearest by number, and the farthest.
fn passing() -> Question {
    let contender =
        |name: &str, other| Contender { name: name.into(), note: String::new(), work: pass(other) };
    let mut contenders = vec![contender("to the next core", 1)];
    if core_count() > 2 {
        contenders.push(contender("to the last core", core_count() - 1));
    }
    Question {
        key: "line-passed".into(),
        title: "One cache line passed to another core".into(),
        contenders,
    }
}

/// Two threads write the same line by turns.
fn pass(other: usize) -> Work<'static> {
    let team = Team::new(2);
    Box::new(move |times| {
        let line = Line::default();
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
        spent.wall
    })
}

fn bump(count: usize, shared: bool) -> Work<'static> {
    let team = Team::new(count);
    let lines: Arc<[Line]> = (0..count).map(|_| Line::default()).collect();
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
        spent.processor.mul_f64(times as f64 / (each * count as u64) as f64)
    })
}
