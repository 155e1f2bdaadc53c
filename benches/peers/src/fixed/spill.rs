//! What does a message cost that turns out longer than its slot?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup { spill: true, ..Setup::USUAL });
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let mut slot = pool.claim().expect("a free slot");
            for _ in 0..5 {
                P::put(&mut slot, black_box(&[7; 1000]));
            }
            let frozen = P::freeze(slot);
            assert_eq!(frozen.as_ref().len(), 5000);
        }
        begin.elapsed()
    })
}
