//! Does a thread pay for what the others do?
//!
//! Each thread keeps one core and its own handle. The number is core time per operation:
//! wall time × busy cores ÷ operations of all threads; a pool that scales perfectly shows one number throughout.

use crate::harness::{Team, Work};

use super::pool::{Pool, Setup};
use super::round_trip::round_trips;

pub fn prepare<P: Pool>(count: usize) -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let team = Team::new(count);
    Box::new(move |times| {
        let each = times.div_ceil(count as u64);
        let handles: Vec<P> = (0..count).map(|_| pool.clone()).collect();
        let wall = team.run(move |thread| {
            round_trips(&handles[thread], &[7; 64], each);
        });
        let operations = each * count as u64;
        // The caller divides by `times`, which may be a little less than what was done.
        let nanos = wall.as_nanos() as f64 * team.cores() as f64 * times as f64 / operations as f64;
        std::time::Duration::from_nanos(nanos as u64)
    })
}
