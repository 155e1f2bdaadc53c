//! What does a slot cost when nothing is done with it?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let slot = pool.claim();
            black_box(&slot);
            drop(slot);
        }
        begin.elapsed()
    })
}
