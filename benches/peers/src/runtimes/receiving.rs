//! The receive loops of one runtime beside each other.

use crate::harness::{Allocator, Effort, Progress, take_turns_anew};
use crate::receive::{Metric, Shape, System, one_turn, rows_of, start_all};
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
            Self::Tokio => {
                &[System::OursTokio, System::OursTokioThread, System::OursTokioBatch, System::Tokio]
            }
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
    let start = || start_all("lockstep", home.systems(), shape, Allocator::Glibc, progress);
    let answers =
        take_turns_anew(effort.choose(1, 4), effort.choose(3, 8), start, one_turn(shape, effort));
    let rows = rows_of(Metric::Whole, &answers);
    let title = format!("{}, {}: the whole round", home.name(), shape.title());
    let ours = home.systems()[0].name();
    part.push(Comparison::beside(ours, &home.key(shape), &title, "µs", rows));
}
