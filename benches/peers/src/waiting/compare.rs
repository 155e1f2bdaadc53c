//! Without need, then with.

use std::io;

use crate::harness::{Effort, Progress, pin_to_core};
use crate::report::Part;

use super::systems::System;
use super::{figures, latency, many_words, uncontended};

const INTRODUCTION: &str = "\
Without need: nanoseconds per claim and drop of an arena that has free slots, the future polled once. With need: 16 slots, 32 tasks on one \
thread that claim, wait in line, and pass what they got to a second thread, which drops it at once; a wake is counted from just before the \
drop to the moment a task has the slot. Each system has a process of its own; one that gives no answer for half a minute \
is reported as stopped. A full run has ten million cycles of ours; `scripts/soak-waiting` has as many with one claim in four cancelled.";

pub fn run(effort: Effort) -> Part {
    pin_to_core(0);
    let progress = Progress::begin("waiting", 3);
    let mut part = Part::new("waiting", "Waiting for memory", INTRODUCTION, effort);
    progress.step("claims without need to wait");
    uncontended::add(&mut part, effort);
    progress.step("a million slots");
    many_words::add(&mut part, effort);
    progress.step("wakes");
    latency::add(&mut part, effort, &progress);
    figures::add(&mut part);
    part
}

/// The child's side.
pub fn work(words: &[String]) -> io::Result<()> {
    let system = words.first().and_then(|key| System::parse(key));
    let system = system.ok_or_else(|| io::Error::other("no such system"))?;
    latency::work(system)
}
