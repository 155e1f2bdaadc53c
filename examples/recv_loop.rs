//! A receive loop over many TCP connections: into the slots of an arena, out as `Bytes`.
//!
//! One thread receives on one ring and hands every `Bytes` to a worker thread. The worker computes
//! the checksum and drops the bytes, which frees their slot. Without arguments the example starts
//! its own senders on loopback, and compares every checksum.
//!
//! ```text
//! cargo run --release --example recv_loop
//! cargo run --release --example recv_loop -- --compare
//! cargo run --release --example recv_loop -- --slots 8
//! cargo run --release --example recv_loop -- --listen 127.0.0.1:9000
//! nc -N 127.0.0.1 9000 < FILE                                            # in another shell
//! ```

#[path = "recv_loop/options.rs"]
mod options;
#[path = "recv_loop/plain.rs"]
mod plain;
#[path = "recv_loop/senders.rs"]
mod senders;
#[path = "recv_loop/serve.rs"]
mod serve;
mod support;
#[path = "recv_loop/worker.rs"]
mod worker;

use std::collections::HashMap;
use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use options::Options;
use senders::Senders;
use support::{Checksum, check_all_free, exact_bytes, mistake, say};
use uring_arena::{BufferRing, BufferRingId, Driver, Event, FixedArena};
use worker::{Work, Worker};

fn main() -> ExitCode {
    support::run(Options::parse, |options| match &options.listen {
        Some(address) => serve::serve(options, address),
        None => verify(options),
    })
}

/// Builds the arena, the driver and the buffer ring.
fn set_up(options: &Options) -> Result<(FixedArena, Driver, BufferRingId), Box<dyn Error>> {
    let arena = FixedArena::with_slot_capacity(options.slots, options.slot_bytes)
        .alignment(4096)
        .build()?;
    // One operation per connection, and one for the listener.
    let mut driver = Driver::builder().operations(options.connections_max() + 1).build()?;
    let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    Ok((arena, driver, ring))
}

/// Receives from senders of its own on loopback, and compares every checksum.
fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    let connections = options.connections.get();
    support::need_descriptors(2 * connections as u64 + 64)?;
    let (arena, mut driver, ring) = set_up(options)?;
    let (outgoing, incoming) = connect_pairs(connections)?;
    let mut streams = HashMap::new();
    for (stream, socket) in (0..).zip(incoming) {
        streams.insert(driver.receive(ring, socket)?, stream);
    }
    // A comparison is of the receiving thread: it has a core of its own.
    let cores = options.compare.then(plain::Cores::part).flatten();
    cores.iter().for_each(plain::Cores::for_others);
    let senders = Senders::start(outgoing, &options.file, options.bytes)?;
    let (queue, worker) = Worker::start();
    cores.iter().for_each(plain::Cores::for_receiver);

    let bar = support::progress(options.bytes);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    let mut tally = Tally::default();
    let mut failure = None;
    while !streams.is_empty() {
        driver.wait()?;
        while let Some(event) = driver.next() {
            match event {
                Event::Received { id, bytes, .. } => {
                    let Some(&stream) = streams.get(&id) else { continue };
                    tally.record(bytes.len(), &worker);
                    queue.send(Work::Bytes { stream, bytes })?;
                }
                Event::Closed { id, error, .. } => {
                    streams.remove(&id);
                    if let Some(error) = error {
                        failure = Some(mistake(format!("a connection failed: {error}")));
                    }
                }
                _ => {}
            }
        }
        bar.set_position(tally.bytes);
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    bar.finish_and_clear();
    drop(queue);
    let received = worker.finish();
    let sent = senders.finish()?;
    let waited = driver.metrics().starved;
    let drained = driver.drain(Duration::from_secs(10))?;

    let per_connection = options.bytes / connections as u64;
    say!("work       {connections} connections, {per_connection} bytes on each");
    say!("received   {} in {:.2} s", exact_bytes(tally.bytes), time.as_secs_f64());
    say!("pieces     {}, {} bytes on average", tally.messages, tally.average());
    say!("rate       {}", support::rate(tally.bytes, time));
    say!("CPU        {}", support::cpu_s_per_gb(tally.bytes, cpu));
    say!(
        "slots      {} of {} bytes, {} pieces in use at the peak",
        options.slots,
        options.slot_bytes,
        tally.in_use_peak
    );
    say!("waited     {waited} times a connection waited for its turn: the ready slots were taken");
    if let Some(failure) = failure {
        return Err(failure);
    }
    compare(&sent, &received)?;
    check_all_free(&arena, drained.in_flight)?;
    if options.compare {
        plain::compare(options, cpu)?;
    }
    say!("verified {} on {connections} connections", exact_bytes(tally.bytes));
    Ok(())
}

fn connect_pairs(count: usize) -> Result<(Vec<TcpStream>, Vec<TcpStream>), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut pairs = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        pairs.0.push(TcpStream::connect(address)?);
        pairs.1.push(listener.accept()?.0);
    }
    Ok(pairs)
}

fn compare(sent: &[Checksum], received: &HashMap<u64, Checksum>) -> Result<(), Box<dyn Error>> {
    for (stream, sent) in (0..).zip(sent) {
        let received = received.get(&stream).copied().unwrap_or_default();
        if *sent != received {
            return Err(mistake(format!(
                "connection {stream}: sent {sent}, but received {received}"
            )));
        }
    }
    Ok(())
}

/// The counts of the receiving thread.
#[derive(Default)]
struct Tally {
    bytes: u64,
    messages: u64,
    in_use_peak: u64,
}

impl Tally {
    /// Returns the bytes of a piece on average.
    fn average(&self) -> u64 {
        self.bytes.checked_div(self.messages).unwrap_or(0)
    }

    fn record(&mut self, bytes: usize, worker: &Worker) {
        self.bytes += bytes as u64;
        self.messages += 1;
        self.in_use_peak = self.in_use_peak.max(self.messages.saturating_sub(worker.dropped()));
    }
}
