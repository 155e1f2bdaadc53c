//! Turns: every contender is asked once a round, and another one goes first each round.

use std::io;

use super::Sample;

/// What one contender answered, round by round.
#[derive(Default)]
pub struct Answers {
    samples: Vec<Sample>,
    failure: Option<String>,
}

/// Asks all contenders so many times. Who fails is not asked again: one that hangs would cost its patience each round.
pub fn take_turns<C>(
    contenders: &mut [C],
    rounds: usize,
    mut ask: impl FnMut(&mut C) -> io::Result<Sample>,
) -> Vec<Answers> {
    let count = contenders.len();
    let mut answers: Vec<Answers> = contenders.iter().map(|_| Answers::default()).collect();
    for round in 0..rounds {
        for turn in 0..count {
            let which = (round + turn) % count;
            let own = &mut answers[which];
            // An empty sample keeps the rounds of all contenders side by side.
            let asked = match own.failure {
                Some(_) => Ok(Sample::default()),
                None => ask(&mut contenders[which]),
            };
            own.samples.push(asked.unwrap_or_else(|error| {
                own.failure = Some(format!("**stopped in round {} of {rounds}**: {error}", round + 1));
                Sample::default()
            }));
        }
    }
    answers
}

impl Answers {
    /// One value a round; not a number where there was none.
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.get(name).unwrap_or(f64::NAN)).collect()
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter_map(|sample| sample.get(name)).sum()
    }

    /// Why there are no more answers.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The contender's note, and what went wrong.
    pub fn note(&self, note: &str) -> String {
        match &self.failure {
            Some(failure) => format!("{note}; {failure}"),
            None => note.to_owned(),
        }
    }

    /// Puts later answers behind these.
    pub fn extend(&mut self, later: Self) {
        self.samples.extend(later.samples);
        self.failure = self.failure.take().or(later.failure);
    }
}
