//! What does memory cost that is claimed here and dropped on another thread?
//!
//! The producer fills batches of 32 and passes them through one queue, the same for every
//! contender; the droppers are on the other cores. Counted from the first claim to the last drop.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;

use crate::harness::{Work, core_count, pin_to_core};

use super::pool::{Pool, Setup};

const BATCH: usize = 32;
/// Batches on their way: at most half of the slots are out, so a claim fails only for a moment.
const BATCHES: usize = 16;

struct Shared<F> {
    full: ArrayQueue<Vec<F>>,
    empty: ArrayQueue<Vec<F>>,
    dropped: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Dropping threads that live as long as the work.
struct Droppers<F: Send + 'static> {
    shared: Arc<Shared<F>>,
    threads: Vec<JoinHandle<()>>,
}

pub fn prepare<P: Pool>(droppers: usize) -> Work<'static> {
    let pool = P::new(Setup::USUAL);
    let droppers = Droppers::<P::Frozen>::start(droppers);
    Box::new(move |times| {
        let shared = &droppers.shared;
        shared.dropped.store(0, Ordering::Relaxed);
        shared.asleep.store(false, Ordering::Release);
        droppers.threads.iter().for_each(|dropper| dropper.thread().unpark());
        let batches = times.div_ceil(BATCH as u64);
        let begin = Instant::now();
        for _ in 0..batches {
            let mut batch = wait_for(|| shared.empty.pop());
            for _ in 0..BATCH {
                let mut slot = wait_for(|| pool.claim().ok());
                P::put(&mut slot, &[7; 64]);
                batch.push(P::freeze(slot));
            }
            shared.full.push(batch).ok().expect("room for every batch");
        }
        // Acquire: pairs with the droppers' count, so the last drop is over.
        while shared.dropped.load(Ordering::Acquire) < batches * BATCH as u64 {
            hint::spin_loop();
        }
        let taken = begin.elapsed();
        shared.asleep.store(true, Ordering::Release);
        taken.mul_f64(times as f64 / (batches * BATCH as u64) as f64)
    })
}

fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    loop {
        match get() {
            Some(value) => return value,
            None => hint::spin_loop(),
        }
    }
}

impl<F: Send + 'static> Droppers<F> {
    fn start(count: usize) -> Self {
        let shared = Arc::new(Shared {
            full: ArrayQueue::new(BATCHES),
            empty: ArrayQueue::new(BATCHES),
            dropped: AtomicU64::new(0),
            asleep: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        });
        for _ in 0..BATCHES {
            shared.empty.push(Vec::with_capacity(BATCH)).ok();
        }
        let others = core_count().saturating_sub(1).max(1);
        let threads = (0..count).map(|index| {
            let shared = shared.clone();
            thread::spawn(move || {
                pin_to_core(1 + index % others);
                drop_all(&shared, count > others);
            })
        });
        Self { threads: threads.collect(), shared }
    }
}

/// Drops batches until told to stop; sleeps between rounds, when another contender has the machine.
fn drop_all<F>(shared: &Shared<F>, crowded: bool) {
    while !shared.stop.load(Ordering::Acquire) {
        let Some(mut batch) = shared.full.pop() else {
            if shared.asleep.load(Ordering::Acquire) {
                thread::park();
            } else if crowded {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
            continue;
        };
        let count = batch.len() as u64;
        batch.clear();
        shared.empty.push(batch).ok();
        shared.dropped.fetch_add(count, Ordering::Release);
    }
}

impl<F: Send + 'static> Drop for Droppers<F> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            thread.join().ok();
        }
    }
}
