//! A picture of backpressure: many tasks share few slots and wait for them in order.
//!
//! Each task stands for a connection: it claims a buffer, sends it, and claims the next. Another
//! thread drops the buffers, as a network stack does after it has sent them. The arena neither
//! grows nor refuses a task: the tasks wait, first come, first served.
//!
//! ```text
//! cargo run --release --example backpressure
//! cargo run --release --example backpressure -- 1000 16 20
//! ```

mod support;

use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use support::{CommandLine, count, exact_bytes, mistake, nonzero, say};
use uring_arena::{AsyncFixedArena, FixedArena};

const LINE: CommandLine = CommandLine {
    help: "\
Lets many tasks share few slots of an arena, and draws how long they wait for one.

Usage: backpressure [TASKS [SLOTS [MESSAGES]]]
  TASKS     tasks that send (1000)
  SLOTS     slots of 4 KiB that they share (16)
  MESSAGES  messages that each task sends (20)",
    options: &[],
    flags: &[],
    operands: &["TASKS", "SLOTS", "MESSAGES"],
};

/// The most messages of all tasks together: each one's wait is kept in memory, and then drawn.
const MESSAGES_MAX: usize = 10_000_000;

const SLOT_BYTES: u64 = 4096;

/// The width of the longest bar, in characters.
const BAR_CELLS: usize = 48;

fn main() -> ExitCode {
    support::run(Options::parse, run)
}

struct Options {
    tasks: usize,
    slots: NonZeroUsize,
    messages: usize,
}

impl Options {
    /// Parses the command line. Returns `None` if only help was asked for.
    fn parse() -> Result<Option<Options>, Box<dyn Error>> {
        let mut options = Options { tasks: 1000, slots: nonzero(16)?, messages: 20 };
        let given = LINE.parse(|name, value| {
            let value = count(name, value, 1 << 20, "use fewer")?;
            match name {
                "TASKS" => options.tasks = value.get(),
                "SLOTS" => options.slots = value,
                _ => options.messages = value.get(),
            }
            Ok(())
        })?;
        let messages = options.tasks * options.messages;
        if messages > MESSAGES_MAX {
            return Err(mistake(format!(
                "TASKS times MESSAGES is {messages}: must be at most {MESSAGES_MAX}; use fewer"
            )));
        }
        let bytes = options.slots.get() as u64 * SLOT_BYTES;
        support::check_memory("SLOTS times 4 KiB", bytes)?;
        Ok(given.map(|_| options))
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let Options { tasks, slots, messages } = *options;
    let arena = FixedArena::with_slot_capacity(slots, nonzero(SLOT_BYTES)?).build_async()?;
    let (network, sent) = mpsc::channel::<Bytes>();
    let network_thread = thread::spawn(move || {
        let mut bytes = 0;
        for message in sent {
            bytes += message.len() as u64;
            // The drop of the last `Bytes` of a slot frees the slot.
            drop(message);
        }
        bytes
    });

    let (waits, measured) = mpsc::channel();
    let mut pool = LocalPool::new();
    let start = Instant::now();
    for number in 0..tasks {
        let task = connection(arena.clone(), number, messages, network.clone(), waits.clone());
        pool.spawner().spawn_local(task)?;
    }
    drop((network, waits));
    pool.run();
    let took = start.elapsed();
    let bytes = network_thread.join().expect("the network thread does not panic");

    let mut waits: Vec<Duration> = measured.iter().collect();
    waits.sort_unstable();
    say!("{tasks} tasks, {slots} slots of {SLOT_BYTES} bytes, {messages} messages each");
    say!("sent {} in {}\n", exact_bytes(bytes), support::time(took));
    draw(&waits);
    let metrics = arena.metrics();
    say!(
        "\n{} claims served, {} slots freed, {} claims refused",
        metrics.allocations_ok,
        metrics.frees,
        metrics.allocations_failed
    );
    Ok(())
}

async fn connection(
    arena: AsyncFixedArena,
    number: usize,
    messages: usize,
    network: mpsc::Sender<Bytes>,
    waits: mpsc::Sender<Duration>,
) {
    for message in 0..messages {
        let start = Instant::now();
        let mut buffer = arena.allocate_async().await;
        let _ = waits.send(start.elapsed());
        buffer.put_u64(number as u64);
        buffer.put_u64(message as u64);
        buffer.put_bytes(7, 1000);
        let _ = network.send(buffer.freeze());
    }
}

/// Draws percentiles of the sorted waits as bars.
fn draw(waits: &[Duration]) {
    let Some(longest) = waits.last().map(Duration::as_secs_f64) else { return };
    say!("wait for a slot");
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
        say!("{name:>6} {:>10} {}{tip}", support::time(wait), "█".repeat(cells / 8));
    }
}
