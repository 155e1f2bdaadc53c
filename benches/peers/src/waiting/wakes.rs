//! The time from a drop on another thread to the task that waited for it.

use std::cell::{Cell, RefCell};
use std::hint;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::measure::pin_to_core;
use crate::run::{Sample, Work};

use super::arenas::Waitable;

const SLOTS: usize = 16;
const TASKS: usize = 2 * SLOTS;

/// The state that the two threads share.
struct Shared<S> {
    /// Claimed slots on their way to the thread that drops them.
    passed: ArrayQueue<S>,
    /// The moments of drops, in order; waiters are served in the same order.
    dropped: ArrayQueue<Instant>,
    /// A round is running. Otherwise the dropping thread leaves its core to other contenders.
    is_running: AtomicBool,
}

pub fn wakes<W: Waitable>() -> io::Result<Work> {
    let shared = Arc::new(Shared {
        passed: ArrayQueue::new(TASKS),
        dropped: ArrayQueue::new(2 * TASKS),
        is_running: AtomicBool::new(false),
    });
    let arena = W::new(SLOTS);
    let dropper = thread::spawn({
        let shared = shared.clone();
        move || {
            pin_to_core(1);
            drop_all::<W>(&shared);
        }
    });
    pin_to_core(0);
    let runtime = Builder::new_current_thread().build()?;
    Ok(Box::new(move |cycles| {
        // Release: pairs with the acquire in `drop_all`.
        shared.is_running.store(true, Ordering::Release);
        dropper.thread().unpark();
        let begin = Instant::now();
        let all = LocalSet::new();
        let mut latencies = runtime.block_on(all.run_until(cycle(&arena, &shared, cycles)));
        let nanos = begin.elapsed().as_nanos() as f64;
        shared.is_running.store(false, Ordering::Release);
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64;
        Ok(Sample::default()
            .with("p50", at(0.5))
            .with("p99", at(0.99))
            .with("p999", at(0.999))
            .with("cycle", nanos / cycles as f64)
            .with("cycles", cycles as f64))
    }))
}

/// Has all tasks together claim so many times; returns the latencies in nanoseconds.
async fn cycle<W: Waitable>(arena: &W, shared: &Arc<Shared<W::Slot>>, cycles: u64) -> Vec<u64> {
    // Slots of the last run may still be on their way back.
    while shared.dropped.pop().is_some() {}
    let left = Rc::new(Cell::new(cycles));
    let latencies = Rc::new(RefCell::new(Vec::with_capacity(cycles as usize)));
    let tasks = (0..TASKS).map(|_| {
        let (arena, shared) = (arena.clone(), shared.clone());
        let (left, latencies) = (left.clone(), latencies.clone());
        tokio::task::spawn_local(async move {
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                let slot = arena.wait().await;
                // The first ones found free slots, and nothing was dropped for them.
                if let Some(dropped) = shared.dropped.pop() {
                    latencies.borrow_mut().push(dropped.elapsed().as_nanos() as u64);
                }
                shared.passed.push(slot).ok().expect("room for every slot");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no task panics");
    }
    latencies.take()
}

/// Drops whatever comes, until the process ends.
fn drop_all<W: Waitable>(shared: &Shared<W::Slot>) {
    loop {
        match shared.passed.pop() {
            Some(slot) => {
                shared.dropped.push(Instant::now()).ok();
                drop(slot);
            }
            None if shared.is_running.load(Ordering::Acquire) => hint::spin_loop(),
            None => thread::park(),
        }
    }
}
