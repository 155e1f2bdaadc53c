//! What do claims and drops cost when several threads share the arena?

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::harness::{Spent, Team, Work};

use super::churn::{claim_and_drop, replace};
use super::memory::Memory;
use super::random::{Random, Steps};

/// Processor time of all threads for as many operations as were asked for.
fn core_time(spent: Spent, done: u64, asked: u64) -> Duration {
    spent.processor.mul_f64(asked as f64 / done as f64)
}

/// Each thread claims and drops one block at a time.
pub fn alone<M: Memory>(memory: M, bytes: usize, count: usize) -> Work<'static> {
    let team = Team::new(count);
    Box::new(move |times| {
        let each = times.div_ceil(count as u64);
        let memory = memory.clone();
        let spent = team.run(move |_| {
            claim_and_drop(&memory, bytes, each);
        });
        core_time(spent, each * count as u64, times)
    })
}

/// Two threads hold 256 blocks each and replace them at random; every 1024 operations each leaves
/// its own to the other, so most drops meet blocks that the other thread claimed.
pub fn larson<M: Memory>(memory: M) -> Work<'static> {
    let team = Team::new(2);
    let mut random = Random::new(19);
    let mut set = || (0..256).map(|_| memory.claim(random.size())).collect::<Vec<_>>();
    let sets = std::sync::Arc::new([Mutex::new(set()), Mutex::new(set())]);
    Box::new(move |times| {
        let turns = times.div_ceil(2 * 1024).max(1);
        let (memory, sets) = (memory.clone(), sets.clone());
        let spent = team.run(move |thread| {
            let mut random = Random::new(23 + thread as u64);
            let mut steps = Steps::draw(&mut random, 256, Random::size);
            for turn in 0..turns as usize {
                let mut set = sets[(thread + turn) % 2].lock().expect("not poisoned");
                replace(&memory, &mut set, &mut steps, 1024);
            }
        });
        core_time(spent, turns * 2 * 1024, times)
    })
}

/// One thread claims batches of 32, the other drops them.
pub fn passed<M: Memory>(memory: M) -> Work<'static> {
    let team = Team::new(2);
    Box::new(move |times| {
        let batches = times.div_ceil(32).max(1);
        let memory = memory.clone();
        let queue: ArrayQueue<Vec<Option<M::Block>>> = ArrayQueue::new(16);
        let finished = AtomicBool::new(false);
        let spent = team.run(move |thread| {
            if thread == 0 {
                let mut random = Random::new(29);
                for _ in 0..batches {
                    let mut batch: Vec<_> = (0..32).map(|_| memory.claim(random.size())).collect();
                    while let Err(back) = queue.push(batch) {
                        batch = back;
                        std::hint::spin_loop();
                    }
                }
                // Release: pairs with the acquire below; every batch is in the queue.
                finished.store(true, Ordering::Release);
                return;
            }
            loop {
                let last = finished.load(Ordering::Acquire);
                match queue.pop() {
                    Some(batch) => drop(batch),
                    None if last => return,
                    None => std::hint::spin_loop(),
                }
            }
        });
        spent.wall.mul_f64(times as f64 / (batches * 32) as f64)
    })
}
