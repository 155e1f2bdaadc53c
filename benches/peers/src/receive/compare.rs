//! Each shape to each system: a process for each, rounds interleaved.

use std::io;

use crate::harness::{
    Allocator, Answers, Child, Effort, Progress, Sample, pin_to_core, take_turns_anew,
};
use crate::report::{Comparison, Part, Row};

use super::lockstep::{self, Fate};
use super::systems::System;
use super::{Shape, far_ends, figures, idle, instructions};

const INTRODUCTION: &str = "\
TCP over loopback, in lockstep: one pinned thread writes one message to each connection, then drains them all; microseconds \
of processor time per message, so that neighbours on the machine are not in it. \
Each system has a process of its own, started anew several times; rounds are interleaved. With DEFER_TASKRUN, and with epoll, the kernel receives inside the drain: \
there the drain alone is the receiver's work. Other rings receive inside the sender's calls; for them only the whole round, sending \
included, can be compared. Settings are the best that each one's documentation names; as they come they are shown with 64 connections. Buffers are 1024 × 4096 B (16 KiB for messages of 16 KiB), touched beforehand. Each message is dropped at once, \
or kept until the round is drained and dropped by a thread on another core, whose time is added; only what may leave its thread takes part \
in that, copied where its owner may not.";

pub fn run(effort: Effort) -> Part {
    let shapes = Shape::all(effort);
    let progress = Progress::begin("receive", 2 * shapes.len() + 2);
    let mut part = Part::new("receive", "Receiving", INTRODUCTION, effort);
    for shape in shapes {
        progress.step(&shape.title());
        compare(shape, effort, &progress, &mut part);
        progress.step(&format!("{}, dropped on another thread", shape.title()));
        hand_over(shape, effort, &progress, &mut part);
    }
    progress.step("instructions and heap allocations per message");
    instructions::add(&mut part, effort, &progress);
    progress.step("memory of idle connections");
    idle::add(&mut part, effort, &progress);
    figures::add(&mut part);
    part
}

/// The child's side.
pub fn work(words: &[String]) -> io::Result<()> {
    pin_to_core(0);
    let unknown = || io::Error::other("no such system or shape");
    let [kind, name, size] = words else {
        return Err(unknown());
    };
    if kind == far_ends::KIND {
        return far_ends::work(name, size);
    }
    let system = System::parse(name).ok_or_else(unknown)?;
    let shape = Shape::parse(size).ok_or_else(unknown)?;
    match kind.as_str() {
        "lockstep" => lockstep::work(system, shape, Fate::DroppedAtOnce),
        "handover" => lockstep::work(system, shape, Fate::DroppedElsewhere),
        "idle" => idle::work(system, shape),
        _ => Err(unknown()),
    }
}

/// Starts a child for each system; one that fails is left out aloud.
pub fn start_all(
    kind: &str,
    systems: &[System],
    shape: Shape,
    allocator: Allocator,
    progress: &Progress,
) -> Vec<(System, Child)> {
    let start = |&system: &System| match Child::start(
        &["receive", kind, &system.key(), &shape.key()],
        allocator,
    ) {
        Ok(child) => Some((system, child)),
        Err(error) => {
            progress.aloud(&format!("left out: {} at {}: {error}", system.name(), shape.title()));
            None
        }
    };
    systems.iter().filter_map(start).collect()
}

/// Takes one sample of a child: about 8 µs a message, so as many rounds of the wire as fill some
/// shares, and enough for a median. Getting back into step takes its time, too: fewer samples than
/// elsewhere.
pub fn one_turn(shape: Shape, effort: Effort) -> impl FnMut(&mut Child) -> io::Result<Sample> {
    let times = (effort.share.as_micros() as u64 / shape.connections as u64).clamp(16, 256);
    move |child| child.run(times)
}

/// What of a sample a table shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    Drain,
    Whole,
    Wall,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Whole => "whole",
            Self::Wall => "wall",
        }
    }

    /// The drain alone can be compared only where the kernel receives in it.
    fn suits(self, system: System) -> bool {
        self != Self::Drain || system.receives_in_drain()
    }
}

/// A row for each system that the metric suits, in microseconds.
pub fn rows_of(metric: Metric, answers: &[(System, Answers)]) -> Vec<Row> {
    let all = answers.iter().filter(|(system, _)| metric.suits(*system));
    let rows = all.map(|(system, own)| {
        let micros = own.values(metric.name()).into_iter().map(|nanos| nanos / 1000.0);
        let mut note = own.note(system.note());
        let starved = own.sum("starved");
        if starved > 0.0 {
            note += &format!("; **no buffer {starved} times**");
        }
        Row::new(system.name(), &note, micros.collect())
    });
    rows.collect()
}

fn compare(shape: Shape, effort: Effort, progress: &Progress, part: &mut Part) {
    let systems = System::received_with(effort, shape);
    let start = || start_all("lockstep", &systems, shape, Allocator::Glibc, progress);
    let answers =
        take_turns_anew(effort.choose(1, 3), effort.choose(3, 4), start, one_turn(shape, effort));
    let (key, title) = (shape.key(), shape.title());
    for (metric, what) in [
        (Metric::Drain, "the drain alone"),
        (Metric::Whole, "the whole round"),
        (Metric::Wall, "the whole round by the wall clock"),
    ] {
        let rows = rows_of(metric, &answers);
        let key = format!("{}-{key}", metric.name());
        part.push(Comparison::new(&key, &format!("{title}: {what}"), "µs", rows));
    }
}

/// The same with each message dropped by another thread.
fn hand_over(shape: Shape, effort: Effort, progress: &Progress, part: &mut Part) {
    let systems: Vec<_> = System::ALL.into_iter().filter(|system| system.hands_over()).collect();
    let start = || start_all("handover", &systems, shape, Allocator::Glibc, progress);
    let answers =
        take_turns_anew(effort.choose(1, 3), effort.choose(3, 4), start, one_turn(shape, effort));
    let (key, title) = (shape.key(), shape.title());
    for (metric, what) in
        [(Metric::Drain, "the drain and the drop"), (Metric::Whole, "the whole round")]
    {
        let rows = rows_of(metric, &answers);
        let key = format!("handed-{}-{key}", metric.name());
        let title = format!("{title}, dropped on another thread: {what}");
        part.push(Comparison::new(&key, &title, "µs", rows));
    }
}
