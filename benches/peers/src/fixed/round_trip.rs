//! What does one message cost from claim to the last drop?

use std::hint::black_box;
use std::time::Duration;

use crate::harness::{Stopwatch, Work};

use super::pool::{Pool, Setup};

pub fn prepare<P: Pool>(bytes: usize) -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let payload = vec![7; bytes];
    Box::new(move |times| round_trips(&pool, &payload, times))
}

/// Claim, write, freeze, drop; shared by the cases that surround it with something.
#[inline(never)]
pub fn round_trips<P: Pool>(pool: &P, payload: &[u8], times: u64) -> Duration {
    let begin = Stopwatch::thread();
    for _ in 0..times {
        let mut slot = pool.claim().expect("a free slot");
        P::put(&mut slot, black_box(payload));
        let frozen = P::freeze(slot);
        black_box(frozen.as_ref());
        drop(frozen);
    }
    begin.elapsed()
}
