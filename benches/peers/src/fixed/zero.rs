//! What does it cost that no byte of an earlier owner is ever visible?

use std::hint::black_box;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>(bytes: usize) -> Work<'static> {
    let pool = P::new(Setup { zero: true, ..Setup::USUAL });
    let payload = vec![7; bytes];
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let mut slot = pool.claim().expect("a free slot");
            P::put(&mut slot, black_box(&payload));
            black_box(&slot);
        }
        begin.elapsed()
    })
}
