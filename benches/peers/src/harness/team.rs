//! Threads that stay: each keeps its core, its heap and its thread-locals from round to round.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Stopwatch, core_count, pin_to_core};

type Job = Arc<dyn Fn(usize) + Send + Sync>;

/// What one thread did of a job.
struct Span {
    begin: Instant,
    end: Instant,
    processor: Duration,
}

/// A job's time.
#[derive(Clone, Copy)]
pub struct Spent {
    /// From the first thread's start to the last thread's end.
    pub wall: Duration,
    /// Processor time of all threads together. What a thread sleeps for a lock is not in it, nor is
    /// what neighbours on the machine do.
    pub processor: Duration,
}

/// A fixed number of pinned threads that start each job together.
pub struct Team {
    jobs: Vec<Sender<Job>>,
    finished: Receiver<Span>,
    arrived: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    pub fn new(size: usize) -> Self {
        let arrived = Arc::new(AtomicUsize::new(0));
        let (report, finished) = channel();
        let mut jobs = Vec::new();
        let mut threads = Vec::new();
        for index in 0..size {
            let (job_in, job_out) = channel::<Job>();
            let (report, arrived) = (report.clone(), arrived.clone());
            jobs.push(job_in);
            threads.push(thread::spawn(move || {
                pin_to_core(index);
                for job in job_out {
                    meet(&arrived, size);
                    let begin = Instant::now();
                    let stopwatch = Stopwatch::thread();
                    job(index);
                    let processor = stopwatch.elapsed();
                    let end = Instant::now();
                    drop(job);
                    report.send(Span { begin, end, processor }).ok();
                }
            }));
        }
        Self { jobs, finished, arrived, threads }
    }

    /// Has all threads do the job, started together.
    pub fn run(&self, job: impl Fn(usize) + Send + Sync + 'static) -> Spent {
        self.arrived.store(0, Ordering::Release);
        let job: Job = Arc::new(job);
        for sender in &self.jobs {
            sender.send(job.clone()).expect("a team thread has died");
        }
        let spans: Vec<_> = self.finished.iter().take(self.jobs.len()).collect();
        let begin = spans.iter().map(|span| span.begin).min();
        let end = spans.iter().map(|span| span.end).max();
        let wall = end.zip(begin).map_or(Duration::ZERO, |(end, begin)| end - begin);
        Spent { wall, processor: spans.iter().map(|span| span.processor).sum() }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Spins until all are here; gives the core away when there are fewer cores than threads.
fn meet(arrived: &AtomicUsize, size: usize) {
    // AcqRel: nobody passes before the last one's preparations are visible.
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < size {
        if size > core_count() {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
