//! Backpressure: many tasks share few slots, and wait for them in order.
//!
//! `cargo run --release --features async-alloc --example backpressure [TASKS [SLOTS [ROUNDS]]]`
//!
//! Each task stands for a connection that wants a buffer, sends it, and wants the next. Buffers
//! come back on another thread, as they do when a network stack lets go of them. The arena neither
//! grows nor refuses: it makes the tasks wait, first come, first served. The picture shows how
//! long.

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use uring_arena::{AsyncFixedArena, FixedArena};

const BAR_CELLS: usize = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<NonZeroUsize>());
    let mut argument =
        |default| arguments.next().unwrap_or(Ok(NonZeroUsize::new(default).expect("not zero")));
    let (tasks, slots, rounds) = (argument(1000)?, argument(16)?, argument(20)?);

    let arena = FixedArena::with_slot_capacity(slots, NonZeroUsize::MIN.saturating_add(4095))
        .build_async()?;
    let (network, sent) = mpsc::channel::<Bytes>();
    let network_thread = thread::spawn(move || {
        let mut bytes = 0;
        for message in sent {
            bytes += message.len();
            // Dropping the last of the bytes is what frees the slot.
            drop(message);
        }
        bytes
    });

    let (waits, measured) = mpsc::channel();
    let mut pool = LocalPool::new();
    let start = Instant::now();
    for number in 0..tasks.get() {
        let task = connection(arena.clone(), number, rounds.get(), network.clone(), waits.clone());
        pool.spawner().spawn_local(task)?;
    }
    drop((network, waits));
    pool.run();
    let took = start.elapsed();
    let bytes = network_thread.join().expect("the network does not panic");

    let mut waits: Vec<Duration> = measured.iter().collect();
    waits.sort_unstable();
    println!(
        "{tasks} tasks, {slots} slots of 4096 bytes, {rounds} messages each: {bytes} bytes in {took:.1?}\n"
    );
    draw(&waits);
    let metrics = arena.metrics();
    println!(
        "\nallocated {}, freed {}, refused {}",
        metrics.allocations_ok, metrics.frees, metrics.allocations_failed
    );
    Ok(())
}

async fn connection(
    arena: AsyncFixedArena,
    number: usize,
    rounds: usize,
    network: mpsc::Sender<Bytes>,
    waits: mpsc::Sender<Duration>,
) {
    for round in 0..rounds {
        let start = Instant::now();
        let mut buffer = arena.allocate_async().await;
        let _ = waits.send(start.elapsed());
        buffer.put_u64(number as u64);
        buffer.put_u64(round as u64);
        buffer.put_bytes(7, 1000);
        let _ = network.send(buffer.freeze());
    }
}

/// The waits at some shares of all, as bars from the shortest to the longest.
fn draw(waits: &[Duration]) {
    let Some(longest) = waits.last().map(Duration::as_secs_f64) else { return };
    println!("wait for a slot");
    for (name, share) in [
        ("p1", 0.01),
        ("p10", 0.1),
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p99.9", 0.999),
        ("max", 1.0),
    ] {
        let wait = waits[((waits.len() - 1) as f64 * share) as usize];
        let cells =
            (wait.as_secs_f64() / longest.max(1e-9) * (8 * BAR_CELLS) as f64).round() as usize;
        let eighths = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let tip =
            (cells % 8).checked_sub(1).map_or(String::new(), |eighth| eighths[eighth].to_string());
        println!("{name:>6} {:>10} {}{tip}", format!("{wait:.1?}"), "█".repeat(cells / 8));
    }
}
