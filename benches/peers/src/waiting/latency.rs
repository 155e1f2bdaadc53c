//! How long is it from a drop on another thread to the task that waited for it?

use std::cell::RefCell;
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

use crate::harness::{Allocator, Child, Effort, Progress, Sample, pin_to_core, serve, take_turns};
use crate::report::{Comparison, Part, Row};

use super::ours::Ours;
use super::systems::{Alligator, Guarded, System, Waitable};

const SLOTS: usize = 16;
const TASKS: usize = 2 * SLOTS;

pub fn add(part: &mut Part, effort: Effort, progress: &Progress) {
    let rounds = effort.choose(5, 20);
    let mut children = Vec::new();
    for system in System::ALL {
        match Child::start(&["waiting", &system.key()], Allocator::Glibc) {
            Ok(child) => children.push((system, child)),
            Err(error) => {
                progress.aloud(&format!("left out: waiting for {}: {error}", system.name()))
            }
        }
    }
    let answers =
        take_turns(&mut children, rounds, |(system, child)| child.run(cycles(*system, effort)));
    for ((system, _), own) in children.iter().zip(&answers) {
        let (name, cycles) = (system.name(), cycles(*system, effort));
        part.remarks.push(match own.failure() {
            None => {
                format!(
                    "{name}: {} cycles of claim, pass, drop, wake, and no hang.",
                    rounds as u64 * cycles
                )
            }
            Some(failure) => format!("{name}: {failure} (a round has {cycles} cycles)."),
        });
    }
    for (key, title) in [
        ("p50", "Wake, median"),
        ("p99", "Wake, 99 of 100 are faster"),
        ("p999", "Wake, 999 of 1000 are faster"),
        ("cycle", "Time per cycle of claim, pass, drop, wake"),
    ] {
        let rows = children.iter().zip(&answers).map(|((system, _), own)| {
            Row::new(system.name(), &own.note(system.note()), own.values(key))
        });
        part.push(Comparison::new(&format!("wake-{key}"), title, "ns", rows.collect()));
    }
}

/// Of a round: ten million of ours in all in a full run, to see whether it ever hangs; fewer of the
/// others, enough for the percentiles.
fn cycles(system: System, effort: Effort) -> u64 {
    effort.choose(20_000, if system == System::Ours { 500_000 } else { 125_000 })
}

/// The child's side.
pub fn work(system: System) -> io::Result<()> {
    match system {
        System::Ours => wakes::<Ours>(),
        System::Alligator => wakes::<Alligator>(),
        System::Semaphore => wakes::<Guarded>(),
    }
}

/// What the two threads share.
struct Shared<S> {
    /// Claimed slots on their way to the thread that drops them.
    passed: ArrayQueue<S>,
    /// When each was dropped, in order; waiters are served in the same order.
    dropped: ArrayQueue<Instant>,
    stop: AtomicBool,
}

fn wakes<W: Waitable>() -> io::Result<()> {
    let shared = Arc::new(Shared {
        passed: ArrayQueue::new(TASKS),
        dropped: ArrayQueue::new(2 * TASKS),
        stop: AtomicBool::new(false),
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
    let served = serve(|cycles| {
        let begin = Instant::now();
        let mut latencies =
            runtime.block_on(LocalSet::new().run_until(cycle(&arena, &shared, cycles)));
        let nanos = begin.elapsed().as_nanos() as f64;
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64;
        Ok(Sample::default()
            .with("p50", at(0.5))
            .with("p99", at(0.99))
            .with("p999", at(0.999))
            .with("cycle", nanos / cycles as f64))
    });
    shared.stop.store(true, Ordering::Release);
    dropper.join().ok();
    served
}

/// So many claims by all tasks together; the latencies in nanoseconds.
async fn cycle<W: Waitable>(arena: &W, shared: &Arc<Shared<W::Slot>>, cycles: u64) -> Vec<u64> {
    // Slots of the last run may still be on their way back.
    while shared.dropped.pop().is_some() {}
    let left = Rc::new(RefCell::new(cycles));
    let latencies = Rc::new(RefCell::new(Vec::with_capacity(cycles as usize)));
    let tasks = (0..TASKS).map(|_| {
        let (arena, shared) = (arena.clone(), shared.clone());
        let (left, latencies) = (left.clone(), latencies.clone());
        tokio::task::spawn_local(async move {
            while let Some(rest) = { left.borrow().checked_sub(1) } {
                *left.borrow_mut() = rest;
                let slot = arena.wait().await;
                // The first ones found free slots, and nothing was dropped for them.
                if let Some(dropped) = shared.dropped.pop() {
                    latencies.borrow_mut().push(dropped.elapsed().as_nanos() as u64);
                }
                shared.passed.push(slot).ok().expect("room for every slot");
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    latencies.take()
}

fn drop_all<W: Waitable>(shared: &Shared<W::Slot>) {
    while !shared.stop.load(Ordering::Acquire) {
        match shared.passed.pop() {
            Some(slot) => {
                shared.dropped.push(Instant::now()).ok();
                drop(slot);
            }
            None => hint::spin_loop(),
        }
    }
}
