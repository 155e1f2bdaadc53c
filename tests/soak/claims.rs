//! Twice as many claims as slots, freed on other threads only, with random cancellation.
//!
//! No wake is ever lost. This is a short form; `scripts/soak-waiting` runs ten million cycles.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{assert_all_free, nz};
use futures::executor::block_on;
use futures::future::{Either, select};
use uring_arena::{AsyncFixedArena, Buffer, FixedArena};

const SLOTS: usize = 8;

/// An arena whose slots are in demand twice, and the threads that drop its buffers.
struct Soak {
    arena: AsyncFixedArena,
    droppers: Vec<mpsc::Sender<Buffer>>,
    threads: Vec<thread::JoinHandle<()>>,
    cycles: Arc<AtomicU64>,
}

impl Soak {
    fn new() -> Soak {
        let arena = FixedArena::with_slot_capacity(nz(SLOTS), nz(64)).build_async().unwrap();
        let cycles = Arc::new(AtomicU64::new(0));
        let (droppers, threads) = (0..2)
            .map(|_| {
                let (dropper, dropped) = mpsc::channel::<Buffer>();
                let cycles = cycles.clone();
                let dropping = thread::spawn(move || {
                    for buffer in dropped {
                        drop(buffer);
                        cycles.fetch_add(1, Ordering::Relaxed);
                    }
                });
                (dropper, dropping)
            })
            .unzip();
        Soak { arena, droppers, threads, cycles }
    }

    /// Runs `work`, and panics if no buffer is dropped for a minute before it is done.
    fn watch(self, work: impl Fn() -> bool) {
        let mut last = (0, 0);
        while !work() {
            thread::sleep(Duration::from_millis(20));
            let now = self.cycles.load(Ordering::Relaxed);
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
            assert!(last.1 < 3000, "hangs after {now} cycles");
        }
        drop(self.droppers);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(self.arena.metrics().allocations_failed, 0);
        assert_all_free(&self.arena);
        println!("{} cycles", self.cycles.load(Ordering::Relaxed));
    }
}

fn cycles(short: u64) -> u64 {
    std::env::var("SOAK_CYCLES")
        .ok()
        .map_or(short, |cycles| cycles.parse().expect("a number of cycles"))
}

fn next(random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

#[test]
fn no_hang_with_twice_the_demand_on_tokio() {
    let soak = Soak::new();
    let each = cycles(100_000) / (2 * SLOTS as u64);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..2 * SLOTS)
        .map(|number| {
            let (arena, dropper) = (soak.arena.clone(), soak.droppers[number % 2].clone());
            runtime.spawn(async move {
                let mut random = number as u64;
                for _ in 0..each {
                    let buffer = loop {
                        // One claim in four is given up, sometimes just when it is served.
                        let claim = arena.allocate_async();
                        match next(&mut random) % 4 {
                            0 => {
                                let hurry = async {
                                    for _ in 0..3 {
                                        tokio::task::yield_now().await;
                                    }
                                };
                                let (claim, hurry) = (std::pin::pin!(claim), std::pin::pin!(hurry));
                                if let Either::Right((buffer, _)) = select(hurry, claim).await {
                                    break buffer;
                                }
                            }
                            _ => break claim.await,
                        }
                    };
                    dropper.send(buffer).unwrap();
                }
            })
        })
        .collect();
    soak.watch(|| tasks.iter().all(|task| task.is_finished()));
}

#[test]
fn no_hang_with_twice_the_demand_of_threads() {
    let soak = Soak::new();
    // Waking a thread is a system call, so there are fewer cycles.
    let each = cycles(40_000) / 20 / 8;
    let threads: Vec<_> = (0..2 * SLOTS)
        .map(|number| {
            let (arena, dropper) = (soak.arena.clone(), soak.droppers[number % 2].clone());
            thread::spawn(move || {
                for _ in 0..each {
                    // Half of the threads use a bare executor, half use none.
                    let buffer = match number % 2 {
                        0 => block_on(arena.allocate_async()),
                        _ => arena.allocate_timeout(Duration::from_secs(600)).unwrap(),
                    };
                    dropper.send(buffer).unwrap();
                }
            })
        })
        .collect();
    soak.watch(|| threads.iter().all(|thread| thread.is_finished()));
}
