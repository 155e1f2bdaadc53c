//! How long a run may take.

use std::time::Duration;

/// Rounds and their length: enough for a steady median, or enough to see that it works.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Asked for with `--quick`.
    pub quick: bool,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// Aimed length of one contender's share of one round.
    pub share: Duration,
}

impl Effort {
    /// All parts within two minutes.
    pub fn quick() -> Self {
        Self { quick: true, rounds: 9, share: Duration::from_millis(2) }
    }

    /// What the published tables are made with.
    pub fn full() -> Self {
        Self { quick: false, rounds: 41, share: Duration::from_millis(8) }
    }

    /// The quick list or the full one.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}
