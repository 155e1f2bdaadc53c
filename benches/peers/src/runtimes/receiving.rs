//! The receive loops of one runtime beside each other.

use crate::harness::{Allocator, Answers, Effort, Progress, take_turns};
use crate::receive::{Metric, Shape, System, rounds_of_wire, rows_of, start_all};
use crate::report::{Comparison, Part};

pub const SHAPES: [Shape; 2] =
    [Shape { connections: 64, message_bytes: 512 }, Shape { connections: 512, message_bytes: 512 }];

/// A runtime, with the ways of receiving in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Home {
    Tokio,
    TokioUring,
    Compio,
    Monoio,
}

impl Home {
    pub const ALL: [Self; 4] = [Self::Tokio, Self::TokioUring, Self::Compio, Self::Monoio];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
            Self::Compio => "compio",
            Self::Monoio => "monoio",
        }
    }

    /// Ours first.
    pub fn systems(self) -> &'static [System] {
        match self {
            Self::Tokio => &[System::OursTokio, System::OursTokioThread, System::Tokio],
            Self::TokioUring => &[
                System::OursTokioUring,
                System::TokioUringInPlace,
                System::TokioUringCopied,
                System::TokioUring,
            ],
            Self::Compio => &[System::OursCompio, System::Compio, System::CompioCopied],
            Self::Monoio => &[System::OursMonoio, System::MonoioInPlace, System::Monoio],
        }
    }

    pub fn key(self, shape: Shape) -> String {
        format!("{}-{}", self.name(), shape.key())
    }
}

pub fn compare(home: Home, shape: Shape, effort: Effort, progress: &Progress, part: &mut Part) {
    let mut systems = Vec::new();
    let mut answers: Vec<Answers> = Vec::new();
    for _ in 0..effort.choose(1, 4) {
        let children = start_all("lockstep", home.systems(), shape, Allocator::Glibc, progress);
        let (started, mut children): (Vec<_>, Vec<_>) = children.into_iter().unzip();
        let times = rounds_of_wire(shape, effort);
        let later = take_turns(&mut children, effort.choose(5, 8), |child| child.run(times));
        if answers.is_empty() {
            (systems, answers) = (started, later);
        } else if started == systems {
            answers.iter_mut().zip(later).for_each(|(own, later)| own.extend(later));
        }
    }
    let rows = rows_of(Metric::Whole, &systems, &answers);
    let title = format!("{}, {}: the whole round", home.name(), shape.title());
    let ours = home.systems()[0].name();
    part.push(Comparison::beside(ours, &home.key(shape), &title, "µs", rows));
}
