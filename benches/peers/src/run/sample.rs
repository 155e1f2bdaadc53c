//! The values of one round, the loops that measure them, and medians of rounds.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use crate::measure::Stopwatch;

/// A function that does a thing so many times, and returns what each time took.
pub type Work = Box<dyn FnMut(u64) -> io::Result<Sample>>;

/// The values of one round by name.
#[derive(Clone, Debug, Default)]
pub struct Sample(BTreeMap<String, f64>);

impl Sample {
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Makes the usual sample: nanoseconds for each operation.
    pub fn nanos(spent: Duration, operations: u64) -> Self {
        Self::default().with("ns", spent.as_nanos() as f64 / operations as f64)
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    pub fn parse(line: &str) -> Self {
        let pairs = line.split_whitespace().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(out, "{name}={value} "))
    }
}

/// Times a loop of the calling thread; each pass of the body does `size` operations.
pub fn repeat(size: u64, mut body: impl FnMut() + 'static) -> io::Result<Work> {
    Ok(Box::new(move |times| {
        let passes = times.div_ceil(size);
        let begin = Stopwatch::thread();
        for _ in 0..passes {
            body();
        }
        Ok(Sample::nanos(begin.elapsed(), passes * size))
    }))
}

/// Makes an I/O error of any other, by its text.
pub fn to_io_error(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The tenth, fiftieth and ninetieth percentile of what the rounds gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
}

impl Spread {
    /// Returns `None` if there is no finite sample.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|s| s.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[(share * last as f64).round() as usize];
        Some(Self { p10: at(0.1), median: at(0.5), p90: at(0.9) })
    }

    /// Returns half of the width between the tenths.
    pub fn half_width(self) -> f64 {
        (self.p90 - self.p10) / 2.0
    }
}

/// Takes one ratio per round: drift between rounds (clock, neighbours) falls out.
pub fn ratios(above: &[f64], below: &[f64]) -> Option<Spread> {
    let each: Vec<f64> = above.iter().zip(below).map(|(a, b)| a / b).collect();
    Spread::of(&each)
}
