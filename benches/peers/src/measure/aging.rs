//! A memory with a history: it was nearly full, and its threads looked for what was left.

use std::io;
use std::sync::Arc;

use crate::run::{Sample, Work};

use super::random::Random;
use super::team::Team;

/// The state of a memory when it is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Age {
    Fresh,
    /// All but a fortieth is held; the free places lie anywhere, as after hours of service.
    NearlyFull,
    /// Everything was held, and every other slot was freed.
    HalfFreed,
    /// Nearly everything was held, and all of it was freed.
    Freed,
}

impl Age {
    pub const ALL: [Self; 4] = [Self::Fresh, Self::NearlyFull, Self::HalfFreed, Self::Freed];

    pub fn key(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::NearlyFull => "nearly-full",
            Self::HalfFreed => "half-freed",
            Self::Freed => "freed",
        }
    }
}

/// The claims of each thread that belong to the history.
const SEARCHES: u64 = 10_000;

/// Measures a claim and a drop on each of `count` threads that went through the history.
pub fn aged<S: Send + 'static>(
    age: Age,
    count: usize,
    claim: impl Fn() -> Option<S> + Send + Sync + 'static,
) -> io::Result<Work> {
    let (team, claim) = (Team::new(count), Arc::new(claim));
    let run = move |times: u64| {
        let claim = claim.clone();
        // A thread that finds nothing, because others hold it, asks again.
        (claim.clone(), move |_: usize| {
            for _ in 0..times {
                let slot = loop {
                    if let Some(slot) = claim() {
                        break slot;
                    }
                };
                std::hint::black_box(&slot);
                drop(slot);
            }
        })
    };
    let (claim, search) = run(SEARCHES);
    team.run(search.clone());
    let mut held = Vec::new();
    if age != Age::Fresh {
        held.extend(std::iter::from_fn(|| claim()));
        if age == Age::HalfFreed {
            let mut number = 0;
            held.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        } else {
            let left = held.len() - held.len() / 40;
            Random::new(43).thin_out(&mut held, left);
        }
        team.run(search);
    }
    if age == Age::Freed {
        held.clear();
    }
    Ok(Box::new(move |times| {
        std::hint::black_box(&held);
        let each = times.div_ceil(count as u64);
        let spent = team.run(run(each).1);
        Ok(Sample::nanos(spent.processor, each * count as u64))
    }))
}
