//! How fast is "no"?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let held: Vec<_> = (0..1024).map_while(|_| pool.claim().ok()).collect();
    assert!(pool.claim().is_err(), "1024 slots serve 1024 claims and no more");
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let refused = pool.claim();
            black_box(&refused);
            assert!(refused.is_err());
        }
        let taken = begin.elapsed();
        black_box(&held);
        taken
    })
}
