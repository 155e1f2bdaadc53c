//! How fast is "no"?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let held: Vec<_> = (0..1024).map_while(|_| pool.claim()).collect();
    assert!(pool.claim().is_none(), "1024 slots serve 1024 claims and no more");
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            assert!(black_box(pool.claim()).is_none());
        }
        let taken = begin.elapsed();
        black_box(&held);
        taken
    })
}
