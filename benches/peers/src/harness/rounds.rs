//! Rounds that visit every contender in turn, so that a disturbance meets them all.

use std::time::Duration;

use super::Effort;

/// Does a thing so many times and says how long that took.
pub type Work<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// One line of a comparison before it is measured.
pub struct Contender<'a> {
    pub name: String,
    pub note: String,
    pub work: Work<'a>,
}

/// Nanoseconds per operation by round, one list per contender.
pub fn interleave(contenders: &mut [Contender<'_>], effort: Effort) -> Vec<Vec<f64>> {
    let times: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| calibrate(&mut contender.work, effort.share))
        .collect();
    let mut samples = vec![Vec::with_capacity(effort.rounds); contenders.len()];
    let count = contenders.len();
    for round in 0..effort.rounds {
        for turn in 0..count {
            // Who goes first changes each round: nobody always follows the same neighbour's cache.
            let which = (round + turn) % count;
            let taken = (contenders[which].work)(times[which]);
            // No time at all means that the contender has failed: no number is better than a wrong
            // one.
            let nanos = if taken.is_zero() { f64::NAN } else { taken.as_nanos() as f64 };
            samples[which].push(nanos / times[which] as f64);
        }
    }
    samples
}

/// How often the work fits into the aimed length; warms it up on the way.
fn calibrate(work: &mut Work<'_>, share: Duration) -> u64 {
    let mut times = 64;
    loop {
        let taken = work(times);
        if taken >= share / 4 || times >= 1 << 28 {
            let each = taken.as_nanos().max(1) as f64 / times as f64;
            return ((share.as_nanos() as f64 / each) as u64).max(1);
        }
        times *= 2;
    }
}
