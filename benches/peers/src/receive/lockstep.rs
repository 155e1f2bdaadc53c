//! One thread writes one message to each connection, then drains them all; round after round.
//!
//! Sender and receiver share a core, so nothing depends on how two threads happen to meet. The
//! drain alone is the receiver's work where the kernel receives inside the receiver's own calls
//! (epoll, DEFER_TASKRUN); other rings receive inside the sender's calls, and only their whole
//! round can be compared.

use std::io;
use std::time::{Duration, Instant};

use crate::harness::{Sample, Spread, Stopwatch, heap_allocations, serve};

use super::Shape;
use super::dropper::Dropper;
use super::outlet::Outlet;
use super::systems::System;
use super::wire::Wire;

/// Rounds that are not counted. After a pause longer than its retransmission timeout, as when other
/// systems have their turn, TCP acknowledges the next 16 segments of a connection at once, inside
/// the sender's call, and only then again from the receiver's: until then the drain looks cheaper
/// than it is.
const CATCH_UP: u64 = 20;

/// A system that receives. Built with all connections, armed and ready.
pub trait Receiver {
    /// Receives until so many bytes have arrived, each message handed out as the system does, into
    /// its outlet.
    fn drain(&mut self, bytes: usize) -> io::Result<()>;

    /// How often the kernel found no buffer.
    fn starved(&self) -> u64 {
        0
    }
}

/// What becomes of each message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    DroppedAtOnce,
    /// Kept until the round is drained, then handed over and dropped by the other thread.
    DroppedElsewhere,
}

/// Nanoseconds of each round.
#[derive(Default)]
struct Spent {
    whole: Vec<f64>,
    drain: Vec<f64>,
    /// On the other thread.
    dropped: Vec<f64>,
    /// By the wall clock, sleep and neighbours included; the others are processor time.
    wall: Vec<f64>,
    /// Heap allocations in all drains.
    heap: u64,
}

/// The child's side: one system, one shape.
pub fn work(system: System, shape: Shape, fate: Fate) -> io::Result<()> {
    let (mut wire, receivers) = Wire::connect(shape.connections, shape.message_bytes)?;
    let dropper = (fate == Fate::DroppedElsewhere).then(Dropper::start);
    let outlet = dropper.as_ref().map_or_else(Outlet::default, Dropper::outlet);
    let mut receiver = system.start(receivers, shape, outlet)?;
    // Every buffer seen, every table grown.
    rounds(&mut wire, &mut *receiver, dropper.as_ref(), CATCH_UP)?;
    serve(|times| {
        rounds(&mut wire, &mut *receiver, dropper.as_ref(), CATCH_UP)?;
        let starved = receiver.starved();
        let spent = rounds(&mut wire, &mut *receiver, dropper.as_ref(), times)?;
        let messages = shape.connections as f64;
        let each =
            |rounds: &[f64]| Spread::of(rounds).map_or(f64::NAN, |spread| spread.median / messages);
        Ok(Sample::default()
            .with("whole", each(&spent.whole))
            .with("drain", each(&spent.drain))
            .with("dropped", each(&spent.dropped))
            .with("wall", each(&spent.wall))
            .with("heap", spent.heap as f64 / (times as f64 * messages))
            .with("starved", (receiver.starved() - starved) as f64))
    })
}

fn rounds(
    wire: &mut Wire,
    receiver: &mut dyn Receiver,
    dropper: Option<&Dropper>,
    times: u64,
) -> io::Result<Spent> {
    let mut spent = Spent::default();
    for _ in 0..times {
        let wall = Instant::now();
        let begin = Stopwatch::process();
        let bytes = wire.send(0..wire.connections())?;
        let sent = begin.elapsed();
        let heap = heap_allocations();
        measured_drain(receiver, bytes)?;
        spent.heap += heap_allocations() - heap;
        let end = begin.elapsed();
        spent.wall.push(wall.elapsed().as_nanos() as f64);
        // The other thread sleeps until now, so what the process has spent is the receiver's.
        let dropped = dropper.map_or(Duration::ZERO, Dropper::drop_all).as_nanos() as f64;
        spent.dropped.push(dropped);
        spent.whole.push(end.as_nanos() as f64 + dropped);
        spent.drain.push((end - sent).as_nanos() as f64 + dropped);
    }
    Ok(spent)
}

/// A name of its own, by which callgrind knows what to count.
#[inline(never)]
pub fn measured_drain(receiver: &mut dyn Receiver, bytes: usize) -> io::Result<()> {
    receiver.drain(bytes)
}
