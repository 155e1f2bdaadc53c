//! What does a slot cost when a ring is refilled with many at once?

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

const BATCH: usize = 32;

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let mut batch = Vec::with_capacity(BATCH);
    Box::new(move |times| {
        let rounds = times.div_ceil(BATCH as u64);
        let begin = Stopwatch::thread();
        for _ in 0..rounds {
            pool.claim_many(BATCH, &mut batch);
            assert_eq!(batch.len(), BATCH);
            batch.clear();
        }
        let taken = begin.elapsed();
        taken.mul_f64(times as f64 / (rounds * BATCH as u64) as f64)
    })
}
