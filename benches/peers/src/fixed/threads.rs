//! Does a thread pay for what the others do?
//!
//! Each thread keeps one core and its own handle. The number is processor time of all threads ÷
//! operations of all: a pool that scales perfectly shows one number throughout. What a thread
//! sleeps for a lock is not in it, which favours the mutex.

use crate::harness::{Team, Work};

use super::pool::{Pool, Setup};
use super::round_trip::round_trips;

pub fn prepare<P: Pool>(count: usize) -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let team = Team::new(count);
    Box::new(move |times| {
        let each = times.div_ceil(count as u64);
        let handles: Vec<P> = (0..count).map(|_| pool.clone()).collect();
        let spent = team.run(move |thread| {
            round_trips(&handles[thread], &[7; 64], each);
        });
        // The caller divides by `times`, which may be a little less than what was done.
        spent.processor.mul_f64(times as f64 / (each * count as u64) as f64)
    })
}
