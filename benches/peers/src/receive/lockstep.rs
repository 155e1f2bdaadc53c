//! One thread writes one message to each connection, then drains them all; round after round.
//!
//! Sender and receiver share a core, so nothing depends on the moment at which two threads meet.
//! The drain alone is the receiver's work where the kernel receives inside the receiver's own calls
//! (epoll, DEFER_TASKRUN). Other rings receive inside the sender's calls, and only their whole
//! round can be compared.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::measure::{Stopwatch, heap_allocations};
use crate::run::{Sample, Spread, Work};

use super::far_ends::FarEnds;
use super::receiver::{Dropper, Outlet, Receiver};
use super::wire::{Shape, Wire};

/// A function that takes the receiving ends and arms them all.
pub type Start = fn(Vec<TcpStream>, Shape, Outlet) -> io::Result<Box<dyn Receiver>>;

/// The number of rounds that are not counted. A pause longer than the retransmission timeout of TCP
/// comes before them, as other systems have their turn. After it, the next 16 segments of a
/// connection are acknowledged at once, inside the sender's call. Until they are through, the drain
/// looks cheaper than it is.
const CATCH_UP: u64 = 20;

/// The values of each round, by name.
const VALUES: [&str; 4] = ["whole", "drain", "wall", "heap"];

/// Measures rounds of one system; messages are dropped at once, or by another thread.
pub fn lockstep(start: Start, shape: Shape, in_drain: bool, hands_over: bool) -> io::Result<Work> {
    let (mut wire, sockets) = Wire::connect(shape)?;
    let dropper = hands_over.then(Dropper::start);
    let outlet = dropper.as_ref().map_or_else(Outlet::default, Dropper::outlet);
    let mut receiver = start(sockets, shape, outlet)?;
    // Every buffer seen, every table grown.
    rounds(&mut wire, &mut *receiver, dropper.as_ref(), CATCH_UP)?;
    Ok(Box::new(move |times| {
        rounds(&mut wire, &mut *receiver, dropper.as_ref(), CATCH_UP)?;
        let starved = receiver.starved();
        let values = rounds(&mut wire, &mut *receiver, dropper.as_ref(), times)?;
        let mut sample = Sample::default()
            .with("starved", (receiver.starved() - starved) as f64)
            .with("operations", times as f64 * shape.connections as f64);
        for (name, rounds) in VALUES.into_iter().zip(values) {
            if name != "drain" || in_drain {
                let median = Spread::of(&rounds).map_or(f64::NAN, |spread| spread.median);
                sample = sample.with(name, median / shape.connections as f64);
            }
        }
        Ok(sample)
    }))
}

fn rounds(
    wire: &mut Wire,
    receiver: &mut dyn Receiver,
    dropper: Option<&Dropper>,
    times: u64,
) -> io::Result<[Vec<f64>; 4]> {
    let mut values = [const { Vec::new() }; 4];
    for _ in 0..times {
        let wall = Instant::now();
        let begin = Stopwatch::process();
        let bytes = wire.send(0..wire.connections())?;
        let sent = begin.elapsed();
        let heap = heap_allocations();
        measured_drain(receiver, bytes)?;
        let heap = heap_allocations() - heap;
        let (end, wall) = (begin.elapsed(), wall.elapsed());
        // The other thread sleeps until now, so what the process has spent is the receiver's.
        let dropped = dropper.map_or(Duration::ZERO, Dropper::drop_all);
        let nanos = |time: Duration| time.as_nanos() as f64;
        let all = [nanos(end + dropped), nanos(end - sent + dropped), nanos(wall), heap as f64];
        values.iter_mut().zip(all).for_each(|(list, value)| list.push(value));
    }
    Ok(values)
}

/// Drains, under a name by which callgrind knows what to count.
#[inline(never)]
fn measured_drain(receiver: &mut dyn Receiver, bytes: usize) -> io::Result<()> {
    receiver.drain(bytes)
}

/// The number of connections that are written to at a time: fewer than there are buffers.
const AT_ONCE: usize = 128;

/// Weighs connections that have received one message and wait for the next.
///
/// Counted is the anonymous memory that the process has beyond what it had before the receiver was
/// built. Pools are in it, socket memory of the kernel is not. The sending ends are another
/// process's.
pub fn idle(start: Start, shape: Shape) -> io::Result<Work> {
    let (mut far_ends, sockets) = FarEnds::connect(shape)?;
    let before = resident_bytes()?;
    let mut receiver = start(sockets, shape, Outlet::default())?;
    for first in (0..shape.connections).step_by(AT_ONCE) {
        let bytes = far_ends.send(AT_ONCE.min(shape.connections - first))?;
        receiver.drain(bytes)?;
    }
    Ok(Box::new(move |_| {
        // The far ends and the receiver live as long as this.
        let _both = (&far_ends, &receiver);
        Ok(Sample::default().with("resident", resident_bytes()? - before))
    }))
}

fn resident_bytes() -> io::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kilobytes.ok_or(io::ErrorKind::InvalidData)? * 1024.0)
}
