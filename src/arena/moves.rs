//! Cache lines that move between the cores of a large machine, counted on any machine: each core is
//! a thread, one takes its turn after the other, and the atomics count (`scripts/cache-lines`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use crate::sync::counted::{be_core, moved};
use crate::{BuddyArena, Buffer, FixedArena};

const ROUNDS: u64 = 400;

/// Shared by a count of the standard library, which is not counted here.
type Claim = Arc<dyn Fn() -> Buffer + Send + Sync>;

type Step = Box<dyn FnOnce() + Send>;

/// A thread that is a core, and does one step at a time.
struct Core {
    steps: Option<Sender<Step>>,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    fn start(number: u32) -> Core {
        let (steps, receiver) = channel::<Step>();
        let thread = thread::spawn(move || {
            be_core(number);
            receiver.into_iter().for_each(|step| step());
        });
        Core { steps: Some(steps), thread: Some(thread) }
    }

    /// Has the core do a step, and waits for its end. Returns what it gave and the lines it took.
    fn run<T: Send + 'static>(&self, step: impl FnOnce() -> T + Send + 'static) -> (T, u64) {
        let (sender, receiver) = channel();
        let step = move || {
            let before = moved();
            let value = step();
            sender.send((value, moved() - before)).unwrap();
        };
        self.steps.as_ref().unwrap().send(Box::new(step)).unwrap();
        receiver.recv().unwrap()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Counts the lines that a claim and its drop move, on average once all cores are warm.
fn lines(
    cores: u32,
    claim: Claim,
    dropper: impl Fn(u32) -> u32,
    claimant: impl Fn(u32) -> u32,
    held: usize,
) -> f64 {
    let all: Vec<Core> = (0..cores).map(Core::start).collect();
    let mut queues: Vec<VecDeque<Buffer>> = (0..cores).map(|_| VecDeque::new()).collect();
    let mut total = 0;
    for round in 0..2 * ROUNDS {
        for core in 0..cores {
            let claim = Arc::clone(&claim);
            let (buffer, claimed) = all[claimant(core) as usize].run(move || claim());
            let queue = &mut queues[core as usize];
            queue.push_back(buffer);
            let mut dropped = 0;
            if queue.len() > held {
                let oldest = queue.pop_front().unwrap();
                dropped = all[dropper(core) as usize].run(move || drop(oldest)).1;
            }
            if round >= ROUNDS {
                total += claimed + dropped;
            }
        }
    }
    total as f64 / (ROUNDS * u64::from(cores)) as f64
}

fn fixed(slots: usize) -> Claim {
    let arena = FixedArena::with_sizes(slots, 64).build().unwrap();
    Arc::new(move || arena.allocate().unwrap())
}

fn blocks(blocks: usize) -> Claim {
    let arena = BuddyArena::with_sizes(blocks * 256, 256).build().unwrap();
    Arc::new(move || arena.allocate(256.try_into().unwrap()).unwrap())
}

#[test]
fn lines_that_claims_and_frees_move_between_cores() {
    println!("\nLines moved by a claim and its drop, on average");
    println!("{:58} {:>6} {:>6} {:>6}", "", "2", "16", "64 cores");
    let own = |core| core;
    let table: [(&str, Box<dyn Fn(u32) -> f64>); 8] = [
        (
            "fixed, 1024 slots, dropped where claimed",
            Box::new(move |n| lines(n, fixed(1024), own, own, 0)),
        ),
        (
            "fixed, 4096 slots, dropped where claimed",
            Box::new(move |n| lines(n, fixed(4096), own, own, 0)),
        ),
        (
            "fixed, 4096 slots, 8 held by each core",
            Box::new(move |n| lines(n, fixed(4096), own, own, 8)),
        ),
        (
            "fixed, 4096 slots, dropped by the next core",
            Box::new(move |n| lines(n, fixed(4096), |core| (core + 1) % n, own, 0)),
        ),
        (
            "fixed, 4096 slots, claimed by an engine, dropped by others",
            Box::new(move |n| lines(n, fixed(4096), own, |_| 0, 0)),
        ),
        (
            "blocks of 256 B, 128 MiB, dropped where claimed",
            Box::new(move |n| lines(n, blocks(524_288), own, own, 0)),
        ),
        (
            "blocks of 256 B, 128 MiB, 8 held by each core",
            Box::new(move |n| lines(n, blocks(524_288), own, own, 8)),
        ),
        (
            "blocks of 256 B, 128 MiB, dropped by the next core",
            Box::new(move |n| lines(n, blocks(524_288), |core| (core + 1) % n, own, 0)),
        ),
    ];
    for (index, (name, run)) in table.into_iter().enumerate() {
        let counts = [2, 16, 64].map(run);
        let [two, sixteen, many] = counts;
        println!("{name:58} {two:6.2} {sixteen:6.2} {many:6.2}");
        // As many words as cores: no line is shared.
        assert!(![1, 2].contains(&index) || counts == [0.0; 3], "{name}");
    }
}
