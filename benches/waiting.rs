//! What waiting costs: nothing where nobody waits, and how long a wake takes where somebody does.
//!
//! `cargo bench --features async-alloc --bench waiting`. Interleaved, medians of ratios.

use std::cell::RefCell;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uring_arena::{AsyncFixedArena, Buffer, FixedArena, FixedArenaBuilder};

const ROUNDS: usize = 201;
const CLAIMS: u32 = 20_000;
const SLOTS: usize = 16;
const TASKS: usize = 2 * SLOTS;
const CYCLES: usize = 200_000;
const HANGS_AFTER: Duration = Duration::from_secs(30);

fn main() {
    let arena = slots(1024).build_async().unwrap();
    let plain = slots(1024).build().unwrap();
    let once_waited = slots(1024).build_async().unwrap();
    wait_once(&once_waited);

    println!("medians of {ROUNDS} interleaved rounds, {CLAIMS} claims and drops each");
    ratio("allocate_async / allocate, uncontended", || claim_async(&arena), || claim(&arena));
    ratio("claim and drop, built to wait / built without", || claim(&arena), || claim(&plain));
    ratio("claim and drop, waited once / never", || claim(&once_waited), || claim(&plain));
    ratio("the same loop twice (the noise)", || claim(&plain), || claim(&plain));
    many_words();

    println!(
        "\n{TASKS} tasks, {SLOTS} slots, every drop on another thread, {CYCLES} cycles: ns from drop to slot"
    );
    for _ in 0..3 {
        report("uring-arena", wakes(slots(SLOTS).build_async().unwrap(), claim_arena));
        let guarded = (Arc::new(Semaphore::new(SLOTS)), slots(SLOTS).build().unwrap());
        report("tokio Semaphore + arena", wakes(guarded, claim_guarded));
        report("arena-alligator", wakes(peer(SLOTS), claim_peer));
    }
}

/// A million slots are 32,768 words: what the first waiter pays that sets their bits, and the next one that does not.
fn many_words() {
    let (count, bytes) = (NonZeroUsize::new(1 << 20).unwrap(), NonZeroUsize::new(8).unwrap());
    let arena = FixedArena::with_slot_capacity(count, bytes).build().unwrap();
    let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    let time = |claim: &dyn Fn() -> bool| {
        let start = Instant::now();
        assert!(!claim());
        start.elapsed().as_micros()
    };
    let refused = time(&|| arena.allocate().is_ok());
    let [first, next] = [(); 2].map(|()| time(&|| arena.allocate_timeout(Duration::ZERO).is_ok()));
    println!(
        "\na full arena of {count} slots: refused in {refused} µs, first waiter {first} µs, next {next} µs"
    );
    drop(held);
}

fn slots(count: usize) -> FixedArenaBuilder {
    FixedArena::with_slot_capacity(NonZeroUsize::new(count).unwrap(), NonZeroUsize::new(4096).unwrap())
}

/// Leaves the arena as one where somebody has waited.
fn wait_once(arena: &FixedArena) {
    let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    assert!(arena.allocate_timeout(Duration::from_millis(1)).is_err());
    drop(held);
}

#[inline(never)]
fn claim(arena: &FixedArena) {
    for _ in 0..CLAIMS {
        drop(black_box(arena.allocate().unwrap()));
    }
}

#[inline(never)]
fn claim_async(arena: &AsyncFixedArena) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..CLAIMS {
        let future = std::pin::pin!(arena.allocate_async());
        let Poll::Ready(buffer) = future.poll(&mut context) else { unreachable!("slots are free") };
        drop(black_box(buffer));
    }
}

fn ratio(what: &str, ours: impl Fn(), other: impl Fn()) {
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CLAIMS)
    };
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for round in 0..ROUNDS {
        // Each goes first in turn.
        let (first, second): (&dyn Fn(), &dyn Fn()) =
            if round % 2 == 0 { (&ours, &other) } else { (&other, &ours) };
        let (a, b) = (time(first), time(second));
        pairs.push(if round % 2 == 0 { (a, b) } else { (b, a) });
    }
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (ours, other, ratio) =
        (median(&|pair| pair.0), median(&|pair| pair.1), median(&|pair| pair.0 / pair.1));
    println!("{what:48} {ratio:6.3} ×   ({ours:.2} ns / {other:.2} ns)");
}

fn peer(count: usize) -> arena_alligator::AsyncFixedArena {
    let (count, bytes) = (NonZeroUsize::new(count).unwrap(), NonZeroUsize::new(4096).unwrap());
    arena_alligator::FixedArena::with_slot_capacity(count, bytes).build_async().unwrap()
}

async fn claim_peer(arena: arena_alligator::AsyncFixedArena) -> arena_alligator::Buffer {
    arena.allocate_async().await
}

async fn claim_arena(arena: AsyncFixedArena) -> Buffer {
    arena.allocate_async().await
}

/// The buffer goes back before its permit.
async fn claim_guarded((semaphore, arena): (Arc<Semaphore>, FixedArena)) -> (Buffer, OwnedSemaphorePermit) {
    let permit = semaphore.acquire_owned().await.unwrap();
    (arena.allocate().unwrap(), permit)
}

/// Tasks claim and pass what they got to a thread that drops it; each slot's drop is timed to the next task that has one.
fn wakes<S: Clone + 'static, G: Send + 'static, F: Future<Output = G> + 'static>(
    source: S,
    claim: fn(S) -> F,
) -> Option<Vec<u64>> {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let (droppers, dropped) = mpsc::channel::<G>();
    let (stamps, stamped) = mpsc::channel::<Instant>();
    let dropping = thread::spawn(move || {
        for got in dropped {
            let _ = stamps.send(Instant::now());
            drop(got);
        }
    });
    let taken = Rc::new(RefCell::new(Vec::with_capacity(CYCLES)));
    let tasks = tokio::task::LocalSet::new();
    for _ in 0..TASKS {
        let (source, droppers, taken) = (source.clone(), droppers.clone(), taken.clone());
        tasks.spawn_local(async move {
            loop {
                let got = claim(source.clone()).await;
                taken.borrow_mut().push(Instant::now());
                droppers.send(got).unwrap();
                if taken.borrow().len() >= CYCLES {
                    return;
                }
            }
        });
    }
    drop(droppers);
    let ended = runtime.block_on(async { tokio::time::timeout(HANGS_AFTER, tasks).await.is_ok() });
    dropping.join().unwrap();
    // The first claims found free slots; the n-th after them was served by the n-th drop: both are in order.
    let taken = taken.borrow();
    let served = taken.iter().skip(SLOTS);
    let waits = served.zip(stamped.iter()).map(|(got, freed)| got.saturating_duration_since(freed));
    ended.then(|| waits.map(|wait| wait.as_nanos() as u64).collect())
}

fn report(name: &str, nanoseconds: Option<Vec<u64>>) {
    let Some(mut nanoseconds) = nanoseconds else {
        println!("{name:24} hangs");
        return;
    };
    nanoseconds.sort_unstable();
    let at = |share: f64| nanoseconds[((nanoseconds.len() - 1) as f64 * share) as usize];
    println!("{name:24} p50 {:>7}   p99 {:>8}   p99.9 {:>9}", at(0.5), at(0.99), at(0.999));
}
