//! The cases, and what a system says of itself.

use std::io;
use std::path::Path;

use crate::measure::Allocator;
use crate::run::{Amount, Case, Contender, Effort, Method, Metric, Work, metric};

use super::lockstep::{Start, idle, lockstep};
use super::wire::Shape;

/// The load where exact counts are taken.
const USUAL: Shape = Shape::new(64, 512);
/// The largest number of idle connections.
pub const MANY: usize = 10_000;

/// One question to the systems.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Receiving {
    Lockstep(Shape),
    /// The same, with each message dropped by another thread.
    Handed(Shape),
    /// The receive loops of one runtime beside each other.
    Within(&'static str, Shape),
    /// An exact count of heap allocations.
    Heap,
    /// An exact count of user-space instructions inside the drain.
    Instructions,
    /// The memory of connections while nothing arrives.
    Idle(usize),
}

impl Receiving {
    fn shape(&self) -> Shape {
        match *self {
            Self::Lockstep(shape) | Self::Handed(shape) | Self::Within(_, shape) => shape,
            Self::Heap | Self::Instructions => USUAL,
            Self::Idle(connections) => Shape::new(connections, 512),
        }
    }
}

impl Case for Receiving {
    fn label(&self) -> String {
        let (key, title) = (self.shape().key(), self.shape().title());
        match self {
            Self::Lockstep(_) => format!("{key}: {title}"),
            Self::Handed(_) => format!("handed-{key}: {title}, dropped on another thread"),
            Self::Within(runtime, _) => format!("{runtime}-{key}: {runtime}, {title}"),
            Self::Heap => format!("heap: Heap allocations per message, {title}"),
            Self::Instructions => {
                format!("instructions: User-space instructions per message in the drain, {title}")
            }
            Self::Idle(connections) => format!(
                "idle-{connections}: Memory held by {connections} idle connections (pools included)"
            ),
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        const ALL: &[Metric] = &[
            metric("drain", "the drain alone", "µs", 1e-3),
            metric("whole", "the whole round", "µs", 1e-3),
            metric("wall", "the whole round by the wall clock", "µs", 1e-3),
        ];
        const HANDED: &[Metric] = &[
            metric("drain", "the drain and the drop", "µs", 1e-3),
            metric("whole", "the whole round", "µs", 1e-3),
        ];
        const HEAP: &[Metric] = &[metric("heap", "", "number", 1.0)];
        const INSTRUCTIONS: &[Metric] = &[metric("instructions", "", "number", 1.0)];
        const IDLE: &[Metric] = &[metric("resident", "", "MiB", 1.0 / 1_048_576.0)];
        match self {
            Self::Lockstep(_) => ALL,
            Self::Handed(_) => HANDED,
            Self::Within(..) => &ALL[1..2],
            Self::Heap => HEAP,
            Self::Instructions => INSTRUCTIONS,
            Self::Idle(_) => IDLE,
        }
    }

    /// Chooses as many rounds of the wire as fill a share, at 8 µs a message, and enough for a
    /// median. Getting back into step takes its time too: there are fewer samples than elsewhere.
    fn method(&self, effort: Effort) -> Method {
        let micros = effort.choose(2000, 8000);
        let amount = Amount::Times((micros / self.shape().connections as u64).clamp(16, 256));
        match self {
            Self::Lockstep(_) | Self::Handed(_) => {
                Method::rounds(effort.choose(1, 3), effort.choose(3, 4), amount)
            }
            Self::Within(..) => Method::rounds(effort.choose(1, 4), effort.choose(3, 8), amount),
            Self::Heap => Method { allocator: Allocator::Counting, ..Method::once(64) },
            Self::Instructions => Method { callgrind: Some("*measured_drain*"), ..Method::once(0) },
            Self::Idle(_) => Method::once(1),
        }
    }
}

/// One line of the tables.
pub struct System {
    pub name: &'static str,
    pub note: &'static str,
    /// The kernel receives inside the drain, so the drain alone may be compared.
    pub in_drain: bool,
    /// The messages that it hands out may leave the thread.
    pub hands_over: bool,
    /// The runtime whose own comparison it takes part in.
    pub within: &'static str,
    pub shown: Shown,
    pub start: Start,
}

/// The tables that show a system, other than the comparison of its runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    Always,
    /// A second setting of a system that has another line: not under `--quick`.
    InFull,
    /// A setting that is shown once, at 64 connections in a full run: as it comes, or a curiosity.
    Once,
    Nowhere,
}

impl Contender<Receiving> for System {
    fn name(&self) -> &'static str {
        self.name
    }

    fn note(&self) -> &'static str {
        self.note
    }

    fn suits(&self, case: &Receiving, effort: Effort) -> bool {
        let is_shown = |connections| match self.shown {
            Shown::Always => true,
            Shown::InFull => !effort.quick,
            Shown::Once => !effort.quick && connections == 64,
            Shown::Nowhere => false,
        };
        match *case {
            Receiving::Handed(_) => self.hands_over,
            Receiving::Within(runtime, _) => self.within == runtime,
            // Under `--quick` only what the promise needs.
            Receiving::Instructions if effort.quick => {
                ["uring-arena", "bare io_uring", "tokio + BytesMut"].contains(&self.name)
            }
            // The systems of many connections at all numbers, so that each makes a line.
            Receiving::Idle(_) => is_shown(MANY),
            _ => is_shown(case.shape().connections),
        }
    }

    fn start(&self, case: &Receiving, _: &Path) -> io::Result<Work> {
        let shape = case.shape();
        match case {
            Receiving::Idle(_) => idle(self.start, shape),
            Receiving::Handed(_) => lockstep(self.start, shape, self.in_drain, true),
            _ => lockstep(self.start, shape, self.in_drain, false),
        }
    }
}
