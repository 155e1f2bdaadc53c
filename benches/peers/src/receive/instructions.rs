//! How many instructions of user space, and how many heap allocations, does a message take?
//!
//! Instructions are counted by callgrind inside the drain only, and twice: the difference between a
//! long run and a short one is free of warming up. Both counts are exact, so one round is enough.

use std::io;

use crate::harness::{Allocator, Child, Effort, Progress, Tool};
use crate::report::{Comparison, Part, Row};

use super::systems::System;
use super::{Shape, start_all};

const SHAPE: Shape = Shape { connections: 64, message_bytes: 512 };

pub fn add(part: &mut Part, effort: Effort, progress: &Progress) {
    let mut heap = Vec::new();
    let systems = System::received_with(effort, SHAPE);
    for (system, mut child) in start_all("lockstep", &systems, SHAPE, Allocator::Counting, progress)
    {
        if let Ok(sample) = child.run(64) {
            let each = sample.get("heap").unwrap_or(f64::NAN);
            heap.push(Row::new(system.name(), system.note(), vec![each]));
        }
    }
    part.push(Comparison::new(
        "heap",
        "Heap allocations per message, 64 connections × 512 B",
        "number",
        heap,
    ));

    if !Tool::Callgrind.is_installed() {
        let missing = "Instructions per message are left out: valgrind is not installed (apt-get install valgrind).";
        progress.aloud(missing);
        part.remarks.push(missing.into());
        return;
    }
    let mut counted = Vec::new();
    for system in systems {
        // Under `--quick` only what the figure needs.
        if effort.quick && ![System::Ours, System::Tokio, System::Bare].contains(&system) {
            continue;
        }
        match per_message(system) {
            Ok(each) => counted.push(Row::new(system.name(), system.note(), vec![each])),
            Err(error) => {
                progress.aloud(&format!("left out: instructions of {}: {error}", system.name()))
            }
        }
    }
    let title = "User-space instructions per message in the drain, 64 connections × 512 B";
    part.push(Comparison::new("instructions", title, "number", counted));
}

fn per_message(system: System) -> io::Result<f64> {
    let short = count(system, 2)?;
    let long = count(system, 6)?;
    Ok((long - short) as f64 / (4 * SHAPE.connections) as f64)
}

/// Instructions inside all drains of a run with so many measured rounds.
fn count(system: System, rounds: u64) -> io::Result<u64> {
    let role = ["receive", "lockstep", &system.key(), &SHAPE.key()];
    let mut child = Child::start_under(Tool::Callgrind, "*measured_drain*", &role)?;
    child.run(rounds)?;
    child.instructions()
}
