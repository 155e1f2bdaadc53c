//! Receiving in each runtime, then reading files in those that let our registered memory in.

use std::io;
use std::path::Path;

use crate::harness::{Effort, Progress, pin_to_core};
use crate::report::Part;

use super::receiving::Home;
use super::{figures, reads, receiving, workers};

const INTRODUCTION: &str = "\
Each runtime with our memory, beside the same loop with the runtime's own: in place, where nothing may leave the task, and in the forms that may. \
Receiving is in lockstep as in the part above; microseconds of processor time per message, of sender, receiver and helper threads, all on \
one core. Reading is of a file in the page cache, 4 KiB at a time, one after the other: the disk is not in it. Each system has a process of its \
own, started anew several times, because where a process's memory comes to lie is worth some per cent.";

pub fn run(effort: Effort, target: &Path) -> io::Result<Part> {
    let mut part = Part::new("runtimes", "In the runtimes", INTRODUCTION, effort);
    let progress = Progress::begin("runtimes", Home::ALL.len() * receiving::SHAPES.len() + 2);
    for shape in receiving::SHAPES {
        for home in Home::ALL {
            progress.step(&format!("{}, {}", home.name(), shape.title()));
            receiving::compare(home, shape, effort, &progress, &mut part);
        }
    }
    progress.step("tokio with two workers");
    workers::compare(effort, &progress, &mut part);
    progress.step("reading files");
    reads::compare(target, effort, &progress, &mut part)?;
    figures::add(&mut part);
    Ok(part)
}

/// The child's side; receiving in lockstep has the children of its own part.
pub fn work(words: &[String]) -> io::Result<()> {
    match words {
        [kind, system, path] if kind == reads::KIND => {
            pin_to_core(0);
            reads::work(system, path)
        }
        [kind, system] if kind == workers::KIND => workers::work(system),
        _ => Err(io::Error::other("no such system")),
    }
}
