//! Turns: every contender is asked once a round, and another one goes first each round.

use std::io;

use super::Sample;

/// What one contender answered, round by round.
#[derive(Default)]
pub struct Answers {
    samples: Vec<Sample>,
    failure: Option<String>,
}

/// Asks all contenders so many times. Who fails is not asked again: one that hangs would cost its
/// patience each round.
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
                own.failure =
                    Some(format!("**stopped in round {} of {rounds}**: {error}", round + 1));
                Sample::default()
            }));
        }
    }
    answers
}

/// The same with contenders that are started anew so many times: where a process's memory comes to
/// lie is worth some per cent, and would otherwise be in every round. Those that `start` gives are
/// known by their keys; who is missing has empty rounds.
pub fn take_turns_anew<K: Copy + PartialEq, C>(
    starts: usize,
    rounds: usize,
    mut start: impl FnMut() -> Vec<(K, C)>,
    mut ask: impl FnMut(&mut C) -> io::Result<Sample>,
) -> Vec<(K, Answers)> {
    let mut all: Vec<(K, Answers)> = Vec::new();
    for begun in 0..starts {
        let (keys, mut contenders): (Vec<K>, Vec<C>) = start().into_iter().unzip();
        let answers = take_turns(&mut contenders, rounds, &mut ask);
        for (key, later) in keys.into_iter().zip(answers) {
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, own)) => own.extend(later),
                None => {
                    let mut own = Answers::default();
                    own.samples.resize(begun * rounds, Sample::default());
                    own.extend(later);
                    all.push((key, own));
                }
            }
        }
        for (_, own) in &mut all {
            own.samples.resize((begun + 1) * rounds, Sample::default());
        }
    }
    all
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

    /// The contender's note; how many registered buffers the kernel knew of, where the samples say;
    /// and what went wrong.
    pub fn note(&self, note: &str) -> String {
        let mut words: Vec<String> =
            [note].iter().filter(|note| !note.is_empty()).map(|&n| n.into()).collect();
        let registered =
            self.samples.iter().filter_map(|sample| sample.get("registered")).reduce(f64::max);
        words.extend(registered.map(|count| match count {
            0.0 => "nothing registered".into(),
            count => format!("fdinfo: {count} registered buffers"),
        }));
        words.extend(self.failure.clone());
        words.join("; ")
    }

    /// Puts later answers behind these.
    fn extend(&mut self, later: Self) {
        self.samples.extend(later.samples);
        self.failure = self.failure.take().or(later.failure);
    }
}
