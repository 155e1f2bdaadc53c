//! Do small writes inline, or does each pay for a call and a check?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>() -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let mut slot = pool.claim().expect("a free slot");
            for number in 0..64 {
                P::put_number(&mut slot, black_box(number));
            }
            let frozen = P::freeze(slot);
            black_box(frozen.as_ref());
        }
        begin.elapsed()
    })
}
