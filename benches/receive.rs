//! What the driver costs beside a bare loop that hands nothing out.
//!
//! Lockstep: one pinned thread writes one message to each connection, then drains them all; only the drain is timed. The systems take
//! turns round by round, and the figure is the median of the ratios of neighbouring rounds: two shared cores scatter by
//! much more than what is asked here.
//!
//! ```text
//! cargo bench --bench receive [-- ROUNDS]
//! ```

#[path = "receive/bare.rs"]
mod bare;
#[path = "receive/driven.rs"]
mod driven;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bare::Bare;
use driven::{Driven, Shape};

/// Bytes in a message.
const MESSAGE_BYTES: usize = 512;

/// Slots, and their bytes, on every side.
const SLOTS: usize = 1024;
const SLOT_BYTES: usize = 4096;

/// One system under test: its connections and its way of draining them.
trait System {
    fn name(&self) -> &'static str;

    /// Receives until `bytes` bytes have come in.
    fn drain(&mut self, bytes: usize);
}

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let rounds = rounds.unwrap_or(if bench { 4000 } else { 10 });
    pin();
    for connections in [64, 512] {
        compare(connections, rounds * 64 / connections);
    }
}

fn compare(connections: usize, rounds: usize) {
    let mut systems: Vec<(Box<dyn System>, Vec<TcpStream>)> = Vec::new();
    let (senders, sockets) = pairs(connections);
    let bare = match Bare::new(sockets) {
        Ok(bare) => bare,
        Err(error) => return println!("skipped: {error}"),
    };
    systems.push((Box::new(bare), senders));
    for shape in [Shape::Bytes, Shape::InPlace] {
        let (senders, sockets) = pairs(connections);
        systems.push((Box::new(Driven::new(shape, sockets)), senders));
    }
    let message = [0x5A; MESSAGE_BYTES];
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds); systems.len()];
    for round in 0..rounds + rounds / 10 {
        for ((system, senders), times) in systems.iter_mut().zip(&mut times) {
            for sender in senders.iter_mut() {
                sender.write_all(&message).expect("room in the socket");
            }
            let start = Instant::now();
            system.drain(connections * MESSAGE_BYTES);
            let time = start.elapsed();
            // The first rounds warm up.
            if round >= rounds / 10 {
                times.push(time);
            }
        }
    }
    report(connections, &systems, &times);
}

fn report(connections: usize, systems: &[(Box<dyn System>, Vec<TcpStream>)], times: &[Vec<Duration>]) {
    println!("{connections} connections x {MESSAGE_BYTES} B, {} rounds", times[0].len());
    for ((system, _), own) in systems.iter().zip(times) {
        let per_message = |time: &Duration| time.as_nanos() as f64 / connections as f64;
        let ns = sorted(own.iter().map(per_message));
        let ratios =
            sorted(own.iter().zip(&times[0]).map(|(own, bare)| own.as_secs_f64() / bare.as_secs_f64()));
        println!(
            "  {:24} {:7.0} ns a message (p10 {:6.0})   {:.3} x bare, median of ratios",
            system.name(),
            ns[ns.len() / 2],
            ns[ns.len() / 10],
            ratios[ratios.len() / 2],
        );
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Connections over loopback: the sending ends, the receiving ends.
fn pairs(count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (0..count)
        .map(|_| {
            let sender = TcpStream::connect(address).expect("a connection");
            sender.set_nodelay(true).expect("an option");
            (sender, listener.accept().expect("the other end").0)
        })
        .unzip()
}

/// Keeps this thread on the core that it is on.
fn pin() {
    use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu());
    let _ = sched_setaffinity(None, &cpus);
}
