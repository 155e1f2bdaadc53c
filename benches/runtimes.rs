//! What receiving through the arena costs in each runtime, beside the same loop with the runtime's own buffers.
//!
//! Lockstep: one core, pinned; one message is written to each connection, then all are drained. Counted is the processor time of whole rounds,
//! sender, receiver and helper threads: some rings receive inside the sender's calls, and on one core it is the time that passes, but for
//! what others take. tokio with two workers is not pinned, and shows the time that passes too. The systems take turns round by round, and the figure is the median of the ratios of neighbouring rounds.
//!
//! ```text
//! cargo bench --bench runtimes --features tokio,tokio-uring,compio [-- ROUNDS]
//! ```
//!
//! # Safety
//!
//! Unsafe here: asking the system for one core, and for the processor time.
#![allow(unsafe_code)]

#[path = "runtimes/compio.rs"]
mod compio_loops;
#[path = "runtimes/goal.rs"]
mod goal;
#[path = "runtimes/tokio.rs"]
mod tokio_loops;
#[path = "runtimes/tokio_uring.rs"]
mod tokio_uring_loops;
#[path = "runtimes/workers.rs"]
mod workers;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;

use uring_arena::FixedArena;

/// Bytes in a message.
const MESSAGE_BYTES: usize = 512;

/// Slots, and their bytes, on every side.
const SLOTS: usize = 2048;
const SLOT_BYTES: usize = 4096;

/// One way of receiving: its connections and its way of draining them.
trait System {
    /// Receives until `bytes` bytes have come in, each message handed out and dropped.
    fn drain(&mut self, bytes: usize);
}

/// Bytes of the file that is read.
const READ_BYTES: usize = 256 * SLOT_BYTES;

/// Makes a system that reads this file from its start, over and over.
type StartReads = fn(&std::path::Path) -> Box<dyn System>;

/// Makes a system that receives from these sockets.
type Start = fn(Vec<TcpStream>) -> Box<dyn System>;

fn arena() -> FixedArena {
    let (count, bytes) = (NonZeroUsize::new(SLOTS).unwrap(), NonZeroUsize::new(SLOT_BYTES).unwrap());
    FixedArena::with_slot_capacity(count, bytes).alignment(4096).build().expect("memory")
}

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let rounds: usize = rounds.unwrap_or(if bench { 2000 } else { 10 });
    compare_workers("tokio pool", workers::pool, rounds / 20);
    compare_workers("tokio pool, batch", workers::batched, rounds / 20);
    pin();
    compare_reads(
        "tokio-uring registered",
        tokio_uring_loops::read_arena,
        tokio_uring_loops::read_own,
        rounds / 4,
    );
    compare_reads("compio registered", compio_loops::read_arena, compio_loops::read_own, rounds / 4);
    for connections in [64, 512] {
        let rounds = (rounds * 64 / connections).max(5);
        compare("tokio pool", "tokio BytesMut", tokio_loops::pool, tokio_loops::own, connections, rounds);
        compare(
            "tokio pool, own thread",
            "tokio BytesMut",
            tokio_loops::threaded,
            tokio_loops::own,
            connections,
            rounds,
        );
        compare(
            "tokio pool, own thread, batch",
            "tokio BytesMut",
            tokio_loops::batched,
            tokio_loops::own,
            connections,
            rounds,
        );
        compare(
            "tokio-uring arena",
            "its own buffer",
            tokio_uring_loops::arena,
            tokio_uring_loops::own,
            connections,
            rounds,
        );
        compare(
            "tokio-uring arena",
            "its own buffer, copied out",
            tokio_uring_loops::arena,
            tokio_uring_loops::copied,
            connections,
            rounds,
        );
        compare("compio arena", "its ring", compio_loops::arena, compio_loops::own, connections, rounds);
        compare(
            "compio arena",
            "its ring, copied out",
            compio_loops::arena,
            compio_loops::copied,
            connections,
            rounds,
        );
    }
}

/// Connections of a runtime of several workers.
const WORKERS_CONNECTIONS: usize = 64;

/// Two workers that receive while a third thread sends.
fn compare_workers(
    name: &str,
    start: fn((Vec<TcpStream>, Vec<TcpStream>)) -> workers::Workers,
    rounds: usize,
) {
    let mut sides = [start, workers::own].map(|start| start(pairs(WORKERS_CONNECTIONS)));
    let mut times = [Vec::new(), Vec::new()];
    let rounds = rounds.max(2);
    for round in 0..rounds + rounds.div_ceil(10) {
        for side in [round % 2, 1 - round % 2] {
            let took = sides[side].round();
            if round >= rounds.div_ceil(10) {
                times[side].push(took);
            }
        }
    }
    let ratio = |of: fn(&workers::Took) -> f64| {
        median(times[0].iter().zip(&times[1]).map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    };
    let (elapsed, processor) = (ratio(|took| took.elapsed_ns), ratio(|took| took.processor_ns));
    let [ours, theirs] = [0, 1].map(|side| median(times[side].iter().map(|took| took.elapsed_ns).collect()));
    println!(
        "{WORKERS_CONNECTIONS} x {MESSAGE_BYTES} B  {name}, two workers: {ours:.0} ns a message passed; \
         tokio BytesMut: {theirs:.0}; ratio {elapsed:.3}, of processor time {processor:.3}"
    );
}

/// Reads of a file in the page cache, one after the other.
fn compare_reads(name: &str, start: StartReads, start_own: StartReads, rounds: usize) {
    let path = std::env::temp_dir().join(format!("uring-arena-reads-{}", std::process::id()));
    std::fs::write(&path, vec![7; READ_BYTES]).expect("a file");
    let mut sides = [start, start_own].map(|start| start(&path));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + rounds / 10 {
        for side in [round % 2, 1 - round % 2] {
            let begin = processor_ns();
            sides[side].drain(READ_BYTES);
            if round >= rounds / 10 {
                times[side].push((processor_ns() - begin) as f64 / (READ_BYTES / SLOT_BYTES) as f64);
            }
        }
    }
    std::fs::remove_file(&path).expect("our file");
    let ratios: Vec<f64> = times[0].iter().zip(&times[1]).map(|(ours, theirs)| ours / theirs).collect();
    let [ours, theirs] = times.map(median);
    let ratio = median(ratios);
    println!(
        "{SLOT_BYTES} B reads  {name}: {ours:.0} ns a read; its own buffer: {theirs:.0}; ratio {ratio:.3}"
    );
}

fn compare(name: &str, other: &str, start: Start, start_other: Start, connections: usize, rounds: usize) {
    let mut sides = [start, start_other].map(|start| {
        let (senders, sockets) = pairs(connections);
        (start(sockets), senders)
    });
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds + rounds / 10 {
        // Who goes first finds the caches and the connections as the other left them: take turns at that too.
        for side in [round % 2, 1 - round % 2] {
            let (system, senders) = &mut sides[side];
            let begin = processor_ns();
            for sender in senders.iter_mut() {
                sender.write_all(&[0x5A; MESSAGE_BYTES]).expect("room in the socket");
            }
            system.drain(connections * MESSAGE_BYTES);
            // The first rounds warm up.
            if round >= rounds / 10 {
                times[side].push((processor_ns() - begin) as f64 / connections as f64);
            }
        }
    }
    let ratios: Vec<f64> = times[0].iter().zip(&times[1]).map(|(ours, theirs)| ours / theirs).collect();
    let [ours, theirs] = times.map(median);
    let ratio = median(ratios);
    println!(
        "{connections} x {MESSAGE_BYTES} B  {name}: {ours:.0} ns a message; {other}: {theirs:.0}; ratio {ratio:.3}"
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn pairs(connections: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    (0..connections)
        .map(|_| {
            let sender = TcpStream::connect(address).expect("loopback");
            sender.set_nodelay(true).expect("a socket");
            (sender, listener.accept().expect("connected").0)
        })
        .unzip()
}

/// Everything on one core: what a helper thread does is seen in the time.
fn pin() {
    // SAFETY: a set of cores is plain bits: all zero is the empty one.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: core 0 lies in the set.
    unsafe { libc::CPU_SET(0, &mut cores) };
    // SAFETY: reads the set, which is ours. If it fails the times scatter more.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores) };
}

/// Nanoseconds that all threads of this process have run.
fn processor_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
