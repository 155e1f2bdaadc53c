//! A promise with a number, and what was measured against it.

use crate::harness::Spread;

/// Which side of the number is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Reported beside the others, without a limit.
    Shown,
}

/// One line of the table of figures.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The heading it stands under, such as "Fixed arena".
    pub group: String,
    pub case: String,
    pub bound: Bound,
    /// Of what: "× arena-alligator 0.7".
    pub of: String,
    pub measured: Option<Spread>,
}

impl Figure {
    pub fn new(group: &str, case: &str, bound: Bound, of: &str, measured: Option<Spread>) -> Self {
        Self { group: group.into(), case: case.into(), bound, of: of.into(), measured }
    }

    pub fn target(&self) -> String {
        match self.bound {
            Bound::AtMost(limit) => format!("≤ {limit} {}", self.of),
            Bound::AtLeast(limit) => format!("≥ {limit} {}", self.of),
            Bound::Shown => self.of.clone(),
        }
    }

    pub fn verdict(&self) -> &'static str {
        let Some(measured) = self.measured else {
            return "not measured";
        };
        let kept = match self.bound {
            Bound::AtMost(limit) => measured.median <= limit,
            Bound::AtLeast(limit) => measured.median >= limit,
            Bound::Shown => return "shown",
        };
        if kept { "met" } else { "NOT MET" }
    }
}
