//! What do claims and drops of many lengths cost one thread?

use std::hint::black_box;
use std::time::Duration;

use crate::harness::{Stopwatch, Work};

use super::memory::Memory;
use super::random::{Random, Steps};

/// One block at a time.
pub fn alone<M: Memory>(memory: M, bytes: usize) -> Work<'static> {
    Box::new(move |times| claim_and_drop(&memory, bytes, times))
}

#[inline(never)]
pub fn claim_and_drop<M: Memory>(memory: &M, bytes: usize, times: u64) -> Duration {
    let begin = Stopwatch::thread();
    for _ in 0..times {
        let block = claim_at_last(memory, black_box(bytes));
        black_box(&block);
        drop(block);
    }
    begin.elapsed()
}

/// There is always room in these cases: who refuses because another thread splits at that moment is
/// asked again.
#[inline]
fn claim_at_last<M: Memory>(memory: &M, bytes: usize) -> M::Block {
    loop {
        if let Some(block) = memory.claim(bytes) {
            return block;
        }
    }
}

/// So many live; each operation drops one of them and claims another.
pub fn replaced<M: Memory>(
    memory: M,
    live: usize,
    length: fn(&mut Random) -> usize,
) -> Work<'static> {
    let mut random = Random::new(11);
    let mut held: Vec<_> = (0..live).map(|_| memory.claim(length(&mut random))).collect();
    let mut steps = Steps::draw(&mut random, live, length);
    Box::new(move |times| replace(&memory, &mut held, &mut steps, times))
}

#[inline(never)]
pub fn replace<M: Memory>(
    memory: &M,
    held: &mut [Option<M::Block>],
    steps: &mut Steps,
    times: u64,
) -> Duration {
    let begin = Stopwatch::thread();
    for _ in 0..times {
        let (victim, bytes) = steps.next();
        held[victim] = None;
        held[victim] = Some(claim_at_last(memory, bytes));
    }
    begin.elapsed()
}

/// The arena so full of blocks of one length, the holes anywhere; each operation moves one hole.
pub fn filled<M: Memory>(memory: M, percent: usize, bytes: usize) -> Work<'static> {
    let mut random = Random::new(13);
    let mut held = fill(&memory, percent, bytes, &mut random);
    Box::new(move |times| {
        let begin = Stopwatch::thread();
        for _ in 0..times {
            let victim = random.below(held.len());
            held[victim] = None;
            held[victim] = Some(memory.claim(bytes).expect("the block just dropped fits again"));
        }
        begin.elapsed()
    })
}

/// Claims 16 blocks and drops them again, where so much of the arena is held for ever, with holes
/// anywhere.
pub fn beside<M: Memory>(memory: M, percent: usize, bytes: usize) -> Work<'static> {
    let held = fill(&memory, percent, bytes, &mut Random::new(37));
    let mut few = Vec::with_capacity(16);
    Box::new(move |times| {
        black_box(&held);
        let batches = times.div_ceil(16);
        let begin = Stopwatch::thread();
        for _ in 0..batches {
            few.extend(
                (0..16)
                    .map(|_| memory.claim(black_box(bytes)).expect("a tenth of the arena is free")),
            );
            few.clear();
        }
        begin.elapsed().mul_f64(times as f64 / (batches * 16) as f64)
    })
}

/// So much of the arena in blocks of one length.
fn fill<M: Memory>(
    memory: &M,
    percent: usize,
    bytes: usize,
    random: &mut Random,
) -> Vec<Option<M::Block>> {
    let mut held: Vec<_> = std::iter::from_fn(|| memory.claim(bytes)).map(Some).collect();
    let keep = held.len() * percent / 100;
    while held.len() > keep {
        held.swap_remove(random.below(held.len()));
    }
    held
}

/// Grows to 256 blocks and shrinks to none, in another order.
pub fn burst<M: Memory>(memory: M) -> Work<'static> {
    let mut random = Random::new(17);
    let mut held = Vec::with_capacity(256);
    Box::new(move |times| {
        let bursts = times.div_ceil(256);
        let begin = Stopwatch::thread();
        for _ in 0..bursts {
            held.extend((0..256).map(|_| memory.claim(random.size())));
            while !held.is_empty() {
                held.swap_remove(random.below(held.len()));
            }
        }
        let taken = begin.elapsed();
        taken.mul_f64(times as f64 / (bursts * 256) as f64)
    })
}
