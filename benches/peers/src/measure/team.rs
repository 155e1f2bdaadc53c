//! Threads that stay: each keeps its core, its heap and its thread-locals from round to round.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::clock::{Stopwatch, core_count, pin_to_core};

type Job = Arc<dyn Fn(usize) + Send + Sync>;

/// A value on cache lines that nothing else is on.
#[repr(align(128))]
#[derive(Default)]
pub struct Padded<T>(pub T);

/// The time of a job.
#[derive(Clone, Copy)]
pub struct Spent {
    /// The moment of the first thread's start.
    begin: Instant,
    /// The moment of the last thread's end.
    end: Instant,
    /// The processor time of all threads together. Sleep for a lock is not in it.
    pub processor: Duration,
}

impl Spent {
    /// Returns the time from the first thread's start to the last thread's end.
    pub fn wall(&self) -> Duration {
        self.end - self.begin
    }
}

/// A fixed number of pinned threads that start each job together. They end with the process.
pub struct Team {
    jobs: Vec<Sender<Job>>,
    finished: Receiver<(Instant, Instant, Duration)>,
    arrived: Arc<AtomicUsize>,
}

impl Team {
    pub fn new(size: usize) -> Self {
        Self::on_cores(size, 0)
    }

    /// Makes a team whose threads are pinned to the cores from `first` on, round and round.
    pub fn on_cores(size: usize, first: usize) -> Self {
        let arrived = Arc::new(AtomicUsize::new(0));
        let (report, finished) = channel();
        let start = |index| {
            let (sender, jobs) = channel::<Job>();
            let (report, arrived) = (report.clone(), arrived.clone());
            thread::spawn(move || {
                let cores = core_count().saturating_sub(first).max(1);
                pin_to_core(first + index % cores);
                fill_block_cache();
                for job in jobs {
                    meet(&arrived, size, cores);
                    let (begin, stopwatch) = (Instant::now(), Stopwatch::thread());
                    job(index);
                    let processor = stopwatch.elapsed();
                    drop(job);
                    report.send((begin, Instant::now(), processor)).ok();
                }
            });
            sender
        };
        Self { jobs: (0..size).map(start).collect(), finished, arrived }
    }

    /// Has all threads do the job, started together.
    pub fn run(&self, job: impl Fn(usize) + Send + Sync + 'static) -> Spent {
        self.run_beside(job, || ())
    }

    /// Has all threads do the job while the calling thread does its own.
    fn run_beside(&self, job: impl Fn(usize) + Send + Sync + 'static, own: impl FnOnce()) -> Spent {
        self.arrived.store(0, Ordering::Release);
        let job: Job = Arc::new(job);
        for sender in &self.jobs {
            sender.send(job.clone()).expect("no team thread has died");
        }
        own();
        let spans: Vec<_> = self.finished.iter().take(self.jobs.len()).collect();
        Spent {
            begin: spans.iter().map(|span| span.0).min().expect("a team has a thread"),
            end: spans.iter().map(|span| span.1).max().expect("a team has a thread"),
            processor: spans.iter().map(|span| span.2).sum(),
        }
    }
}

/// Fills this thread's cache of freed blocks with blocks of its own heap. Else it may use one that
/// another thread allocated, beside one that this other thread uses: on the same cache line.
fn fill_block_cache() {
    const BLOCKS: usize = 8;
    let block = |bytes| (0..BLOCKS).map(move |_| Vec::<u8>::with_capacity(bytes));
    let blocks: Vec<Vec<u8>> = (16..=1024).step_by(16).flat_map(block).collect();
    drop(std::hint::black_box(blocks));
}

/// Spins until all are here; gives the core away when there are fewer cores than threads.
fn meet(arrived: &AtomicUsize, size: usize, cores: usize) {
    // AcqRel: nobody passes before the last one's preparations are visible.
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < size {
        relax(size, cores);
    }
}

fn relax(threads: usize, cores: usize) {
    if threads > cores { thread::yield_now() } else { spin_loop() }
}

/// Spins until there is a value.
pub fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    loop {
        match get() {
            Some(value) => return value,
            None => spin_loop(),
        }
    }
}

/// The number of values in a batch that is handed over.
const BATCH: u64 = 32;
/// The number of batches on their way at a time.
const BATCHES: usize = 16;

/// Passes values through one queue from the calling thread to a team, which drops them. Returns
/// nanoseconds for each value, from the first one made to the last one dropped.
pub fn hand_over<T: Send + 'static>(team: &Team, times: u64, mut make: impl FnMut() -> T) -> f64 {
    let full = Arc::new(ArrayQueue::<Vec<T>>::new(BATCHES));
    let empty = Arc::new(ArrayQueue::new(BATCHES));
    (0..BATCHES).for_each(|_| empty.push(Vec::with_capacity(BATCH as usize)).unwrap_or_default());
    let (threads, batches) = (1 + team.jobs.len(), times.div_ceil(BATCH));
    let taken = AtomicU64::new(0);
    let (to_drop, dropped) = (full.clone(), empty.clone());
    let mut begin = Instant::now();
    let drop_all = move |_| {
        // Relaxed: only the count matters, the queue orders the rest.
        while taken.load(Ordering::Relaxed) < batches {
            let Some(mut batch) = to_drop.pop() else {
                relax(threads, core_count());
                continue;
            };
            taken.fetch_add(1, Ordering::Relaxed);
            batch.clear();
            dropped.push(batch).ok().expect("room for every batch");
        }
    };
    let spent = team.run_beside(drop_all, || {
        begin = Instant::now();
        for _ in 0..batches {
            let mut batch = wait_for(|| empty.pop());
            batch.extend((0..BATCH).map(|_| make()));
            full.push(batch).ok().expect("room for every batch");
        }
    });
    (spent.end - begin).as_nanos() as f64 / (batches * BATCH) as f64
}
