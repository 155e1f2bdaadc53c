//! The cases: claims without need to wait, and wakes.

use std::hint::black_box;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::run::{Amount, Case, Contender, Effort, Method, Metric, NANOS, Work, metric, repeat};

use super::arenas::Waitable;
use super::wakes::wakes;

const SLOTS: usize = 1024;

/// One question to the contenders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Waiting {
    Claim,
    Wait,
    Wake,
}

impl Case for Waiting {
    fn label(&self) -> String {
        match self {
            Self::Claim => "claim: Claim without waiting, from an arena that can wait".into(),
            Self::Wait => "wait: Claim with waiting, free slots there".into(),
            Self::Wake => "wake: Wake".into(),
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        const WAKE: &[Metric] = &[
            metric("p50", "median", "ns", 1.0),
            metric("p99", "99 of 100 are faster", "ns", 1.0),
            metric("p999", "999 of 1000 are faster", "ns", 1.0),
            metric("cycle", "time per cycle of claim, pass, drop, wake", "ns", 1.0),
        ];
        if *self == Self::Wake { WAKE } else { NANOS }
    }

    fn method(&self, effort: Effort) -> Method {
        match self {
            // Ten million cycles of each in a full run, to see whether one ever hangs.
            Self::Wake => {
                let cycles = Amount::Times(effort.choose(20_000, 500_000));
                Method { pinned: false, ..Method::rounds(1, effort.choose(5, 20), cycles) }
            }
            _ => Method::micro(effort),
        }
    }
}

impl<W: Waitable> Contender<Waiting> for PhantomData<W> {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn note(&self) -> &'static str {
        W::NOTE
    }

    fn suits(&self, case: &Waiting, _: Effort) -> bool {
        *case == Waiting::Claim || !W::ONLY_CLAIMS
    }

    fn start(&self, case: &Waiting, _: &Path) -> io::Result<Work> {
        if *case == Waiting::Wake {
            return wakes::<W>();
        }
        let arena = W::new(SLOTS);
        if *case == Waiting::Claim {
            return repeat(1, move || {
                let slot = arena.claim();
                black_box(&slot);
                drop(slot);
            });
        }
        let mut context = Context::from_waker(Waker::noop());
        repeat(1, move || match pin!(arena.wait()).poll(&mut context) {
            Poll::Ready(slot) => drop(black_box(&slot)),
            Poll::Pending => panic!("a free slot is served at once"),
        })
    }
}
