//! Questions asked together: all contenders of all of them take their turns in the same rounds.

use crate::harness::{Contender, Effort, interleave};

use super::{Comparison, Part, Row};

/// A comparison before it is measured, in nanoseconds per operation.
pub struct Question {
    pub key: String,
    pub title: String,
    pub contenders: Vec<Contender<'static>>,
}

impl Part {
    /// Measures the questions in one interleaved run; one table for each.
    pub fn ask(&mut self, questions: Vec<Question>, effort: Effort) {
        let mut all = Vec::new();
        let mut tables = Vec::new();
        for question in questions {
            let count = question.contenders.len();
            tables.push((question.key, question.title, count));
            all.extend(question.contenders);
        }
        let mut samples = interleave(&mut all, effort).into_iter();
        let mut contenders = all.iter();
        for (key, title, count) in tables {
            let rows = contenders.by_ref().take(count).zip(samples.by_ref());
            let rows = rows
                .map(|(contender, samples)| Row::new(&contender.name, &contender.note, samples));
            self.push(Comparison::new(&key, &title, "ns", rows.collect()));
        }
    }
}
