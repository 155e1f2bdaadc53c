//! A part of the run: its comparisons, the figures they answer, the plots drawn from them.

use crate::harness::{Effort, Spread, ratios};

use super::figure::Figure;
use super::machine::Machine;
use super::{OURS, Plot};

/// What can be asked for by name on the command line.
#[derive(Debug)]
pub struct Part {
    pub name: String,
    pub title: String,
    pub introduction: String,
    pub quick: bool,
    pub machine: Machine,
    pub comparisons: Vec<Comparison>,
    pub figures: Vec<Figure>,
    pub plots: Vec<Plot>,
    /// What was left out, and why.
    pub remarks: Vec<String>,
}

/// One question: a table with a line per contender.
#[derive(Debug)]
pub struct Comparison {
    pub key: String,
    pub title: String,
    pub unit: String,
    pub rows: Vec<Row>,
}

/// One contender's answer.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub note: String,
    /// By round; empty when read back from a record.
    pub samples: Vec<f64>,
    pub spread: Option<Spread>,
    /// Ours ÷ this, by round.
    pub ours_to_this: Option<Spread>,
}

impl Part {
    pub fn new(name: &str, title: &str, introduction: &str, effort: Effort) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            introduction: introduction.into(),
            quick: effort.quick,
            machine: Machine::here(),
            comparisons: Vec::new(),
            figures: Vec::new(),
            plots: Vec::new(),
            remarks: Vec::new(),
        }
    }

    pub fn push(&mut self, comparison: Comparison) {
        self.comparisons.push(comparison);
    }

    pub fn row(&self, key: &str, name: &str) -> Option<&Row> {
        let comparison = self.comparisons.iter().find(|comparison| comparison.key == key)?;
        comparison.rows.iter().find(|row| row.name == name)
    }

    /// The median of the ratios by round of two rows, each named by comparison and contender.
    pub fn ratio(&self, above: (&str, &str), below: (&str, &str)) -> Option<Spread> {
        let (above, below) = (self.row(above.0, above.1)?, self.row(below.0, below.1)?);
        ratios(&above.samples, &below.samples)
    }
}

impl Comparison {
    pub fn new(key: &str, title: &str, unit: &str, rows: Vec<Row>) -> Self {
        Self::beside(OURS, key, title, unit, rows)
    }

    /// Where our line has another name.
    pub fn beside(ours: &str, key: &str, title: &str, unit: &str, mut rows: Vec<Row>) -> Self {
        let ours = rows.iter().find(|row| row.name == ours);
        let ours = ours.map(|row| row.samples.clone());
        if let Some(ours) = ours {
            for row in &mut rows {
                row.ours_to_this = ratios(&ours, &row.samples);
            }
        }
        Self { key: key.into(), title: title.into(), unit: unit.into(), rows }
    }
}

impl Row {
    pub fn new(name: &str, note: &str, samples: Vec<f64>) -> Self {
        Self {
            name: name.into(),
            note: note.into(),
            spread: Spread::of(&samples),
            samples,
            ours_to_this: None,
        }
    }
}
