//! Receiving over TCP: what does a message cost, from the socket to dropped memory?

mod figures;
mod goal;
mod idle;
mod instructions;
mod lockstep;
mod plots;
mod systems;
mod wire;

use std::io;

use crate::harness::{Child, Effort, Progress, Sample, pin_to_core};
use crate::report::{Comparison, Part, Row};

use systems::System;

const INTRODUCTION: &str = "\
TCP over loopback, in lockstep: one pinned thread writes one message to each connection, then drains them all; microseconds \
of processor time per message, so that neighbours on the machine are not in it. \
Each system has a process of its own; rounds are interleaved. With DEFER_TASKRUN, and with epoll, the kernel receives inside the drain: \
there the drain alone is the receiver's work. Other rings receive inside the sender's calls; for them only the whole round, sending \
included, can be compared. Buffers are 1024 × 4096 B (16 KiB for messages of 16 KiB), touched beforehand; each message is dropped at once.";

/// How many connections, and how long a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub connections: usize,
    pub message_bytes: usize,
}

impl Shape {
    /// Room for one whole message, and never less than a page.
    pub fn slot_bytes(self) -> usize {
        self.message_bytes.max(4096)
    }

    fn key(self) -> String {
        format!("{}x{}", self.connections, self.message_bytes)
    }

    fn parse(key: &str) -> Option<Self> {
        let (connections, message_bytes) = key.split_once('x')?;
        Some(Self { connections: connections.parse().ok()?, message_bytes: message_bytes.parse().ok()? })
    }

    fn title(self) -> String {
        format!("{} connections × {} B", self.connections, self.message_bytes)
    }
}

fn shapes(effort: Effort) -> Vec<Shape> {
    let shape = |connections, message_bytes| Shape { connections, message_bytes };
    let quick = vec![shape(64, 512), shape(512, 512)];
    let lengths = [512, 4096, 16384];
    let full =
        [1, 64, 512].into_iter().flat_map(|connections| lengths.map(|bytes| shape(connections, bytes)));
    effort.choose(quick, full.collect())
}

pub fn run(effort: Effort) -> Part {
    let shapes = shapes(effort);
    let progress = Progress::begin("receive", shapes.len() + 2);
    let mut part = Part::new("receive", "Receiving", INTRODUCTION, effort);
    for shape in shapes {
        progress.step(&shape.title());
        compare(shape, effort, &progress, &mut part);
    }
    progress.step("instructions and heap allocations per message");
    instructions::add(&mut part, effort, &progress);
    progress.step("memory of idle connections");
    idle::add(&mut part, effort, &progress);
    figures::add(&mut part);
    plots::add(&mut part);
    part
}

/// The child's side.
pub fn work(words: &[String]) -> io::Result<()> {
    pin_to_core(0);
    let unknown = || io::Error::other("no such system or shape");
    let [kind, system, shape] = words else {
        return Err(unknown());
    };
    let system = System::parse(system).ok_or_else(unknown)?;
    let shape = Shape::parse(shape).ok_or_else(unknown)?;
    match kind.as_str() {
        "lockstep" => lockstep::work(system, shape),
        "idle" => idle::work(system, shape),
        _ => Err(unknown()),
    }
}

/// Starts a child for each system; one that fails is left out aloud.
fn start_all(
    kind: &str,
    shape: Shape,
    allocator: &str,
    effort: Effort,
    progress: &Progress,
) -> Vec<(System, Child)> {
    let start =
        |system: System| match Child::start(&["receive", kind, &system.key(), &shape.key()], allocator) {
            Ok(child) => Some((system, child)),
            Err(error) => {
                progress.aloud(&format!("left out: {} at {}: {error}", system.name(), shape.title()));
                None
            }
        };
    let systems = System::ALL.into_iter().filter(|system| !effort.quick || !system.is_variant());
    systems.filter_map(start).collect()
}

fn compare(shape: Shape, effort: Effort, progress: &Progress, part: &mut Part) {
    let mut children = start_all("lockstep", shape, "", effort, progress);
    let mut samples: Vec<Vec<Sample>> = children.iter().map(|_| Vec::new()).collect();
    // About 8 µs a message: as many rounds of the wire as fill some shares, and enough for a median.
    let rounds_of_wire = (effort.share.as_micros() as u64 / shape.connections as u64).clamp(16, 256);
    let count = children.len();
    // Getting back into step takes its time, too: fewer rounds than elsewhere.
    for round in 0..effort.choose(5, 15) {
        for turn in 0..count {
            let which = (round + turn) % count;
            let sample = children[which].1.run(rounds_of_wire).unwrap_or_default();
            samples[which].push(sample);
        }
    }
    let table = |what: &str, suits: &dyn Fn(System) -> bool| {
        let rows = children.iter().zip(&samples).filter(|((system, _), _)| suits(*system));
        let rows = rows.map(|((system, _), samples)| {
            let micros = samples.iter().map(|sample| sample.get(what).unwrap_or(f64::NAN) / 1000.0);
            let starved: f64 = samples.iter().filter_map(|sample| sample.get("starved")).sum();
            let mut note = system.note().to_owned();
            if starved > 0.0 {
                note += &format!("; **no buffer {starved} times**");
            }
            Row::new(system.name(), &note, micros.collect())
        });
        rows.collect()
    };
    let drain = table("drain", &System::receives_in_drain);
    let whole = table("whole", &|_| true);
    let wall = table("wall", &|_| true);
    let (key, title) = (shape.key(), shape.title());
    part.push(Comparison::new(&format!("drain-{key}"), &format!("{title}: the drain alone"), "µs", drain));
    part.push(Comparison::new(&format!("whole-{key}"), &format!("{title}: the whole round"), "µs", whole));
    let title = format!("{title}: the whole round by the wall clock");
    part.push(Comparison::new(&format!("wall-{key}"), &title, "µs", wall));
}
