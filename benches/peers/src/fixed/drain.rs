//! A drain of received messages: the completions lie ready, and what is timed is ours alone.

use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use uring_arena::{BufferRing, Driver, Event, FixedArena};

use crate::run::{Sample, Spread, Work, to_io_error};

/// The number of messages in a drain: the kernel completes as many in one call.
pub const MESSAGES: usize = 20;

const BYTES: usize = 512;

/// Takes and drops the messages that lie ready. Returns their number.
type Drain = fn(&mut Driver) -> usize;

/// Times drains of [`MESSAGES`] messages, from the first event to the last drop. No call of the
/// kernel is in them.
pub fn drains(in_place: bool) -> io::Result<Work> {
    let arena = FixedArena::with_sizes(1024, 4096).alignment(4096).build().map_err(to_io_error)?;
    let mut driver = Driver::builder().build().map_err(to_io_error)?;
    let options = BufferRing::options().entries(256);
    let ring = driver.register_buffer_ring(&arena, options).map_err(to_io_error)?;
    let mut senders = Vec::new();
    for _ in 0..MESSAGES {
        let (sender, receiver) = UnixStream::pair()?;
        driver.receive(ring, receiver).map_err(to_io_error)?;
        senders.push(sender);
    }
    let drain: Drain = if in_place { drain_in_place } else { drain_as_bytes };
    Ok(Box::new(move |times| {
        let rounds = times.div_ceil(MESSAGES as u64).max(8);
        let mut values = Vec::new();
        for _ in 0..rounds {
            let mut left = MESSAGES;
            for sender in &mut senders {
                sender.write_all(&[7; BYTES])?;
            }
            let mut spent = 0;
            while left > 0 {
                driver.wait().map_err(to_io_error)?;
                let (begin, empty) = (Instant::now(), Instant::now());
                let drained = drain(&mut driver);
                let end = Instant::now();
                // A look at the clock is not part of the drain.
                spent += (end - empty).saturating_sub(empty - begin).as_nanos();
                left -= drained;
            }
            values.push(spent as f64 / MESSAGES as f64);
        }
        let median = Spread::of(&values).map_or(f64::NAN, |spread| spread.median);
        let operations = rounds as f64 * MESSAGES as f64;
        Ok(Sample::default().with("ns", median).with("operations", operations))
    }))
}

#[inline(never)]
fn drain_as_bytes(driver: &mut Driver) -> usize {
    let mut drained = 0;
    while let Some(event) = driver.next() {
        if let Event::Received { bytes, .. } = event {
            drop(black_box(bytes));
            drained += 1;
        }
    }
    drained
}

#[inline(never)]
fn drain_in_place(driver: &mut Driver) -> usize {
    let mut drained = 0;
    while let Some(event) = driver.next_arena_bytes() {
        if let Event::Received { bytes, .. } = event {
            drop(black_box(bytes));
            drained += 1;
        }
    }
    drained
}
