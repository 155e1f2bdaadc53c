//! A median and how far the rounds lie around it.

/// The tenth, fiftieth and ninetieth percentile of what the rounds gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
}

impl Spread {
    /// `None` of no samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|s| s.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[(share * last as f64).round() as usize];
        Some(Self { p10: at(0.1), median: at(0.5), p90: at(0.9) })
    }
}

/// One ratio per round: what drifted between rounds (clock, neighbours) falls out.
pub fn ratios(above: &[f64], below: &[f64]) -> Option<Spread> {
    let each: Vec<f64> = above.iter().zip(below).map(|(a, b)| a / b).collect();
    Spread::of(&each)
}
