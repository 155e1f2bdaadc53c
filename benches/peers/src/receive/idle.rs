//! How much memory does a connection hold while nothing arrives?
//!
//! Each connection has received one message and waits for the next. Counted is what the process
//! holds in anonymous memory beyond what it held before the receiver was built: pools are in it,
//! socket memory of the kernel is not. The sending ends are another process's.

use std::fs;
use std::io;

use crate::harness::{Allocator, Effort, Progress, Sample, serve};
use crate::report::{Comparison, Part, Row};

use super::far_ends::FarEnds;
use super::lockstep::measured_drain;
use super::outlet::Outlet;
use super::systems::System;
use super::{Shape, start_all};

/// Fewest and most: what a connection adds is the difference by the number.
pub const FEW: usize = 64;
pub const MANY: usize = 10_000;

/// So many are written to at a time: fewer than there are buffers.
const AT_ONCE: usize = 128;

pub fn add(part: &mut Part, effort: Effort, progress: &Progress) {
    for connections in effort.choose(vec![FEW, MANY], vec![FEW, 1024, 4096, MANY]) {
        let shape = Shape { connections, message_bytes: 512 };
        let mut rows = Vec::new();
        // Those of many connections in all tables, so that each makes a line of the plot.
        for system in System::received_with(effort, Shape { connections: MANY, message_bytes: 512 })
        {
            // One after the other: nothing is timed, and all together would use up the ports.
            for (system, mut child) in
                start_all("idle", &[system], shape, Allocator::Glibc, progress)
            {
                // What it takes on the way through the wire it keeps; measured when all have been
                // served.
                if let Ok(sample) = child.run(1) {
                    let bytes = sample.get("resident").unwrap_or(f64::NAN);
                    rows.push(Row::new(system.name(), system.note(), vec![bytes / 1_048_576.0]));
                }
            }
        }
        let title = format!("Memory held by {connections} idle connections (pools included)");
        part.push(Comparison::new(&format!("idle-{connections}"), &title, "MiB", rows));
    }
}

/// The child's side: builds, serves each connection once, and weighs itself when asked.
pub fn work(system: System, shape: Shape) -> io::Result<()> {
    let (mut far_ends, receivers) = FarEnds::connect(shape.connections, shape.message_bytes)?;
    let before = resident_bytes()?;
    let mut receiver = system.start(receivers, shape, Outlet::default())?;
    for first in (0..shape.connections).step_by(AT_ONCE) {
        let bytes = far_ends.send(AT_ONCE.min(shape.connections - first))?;
        measured_drain(&mut *receiver, bytes)?;
    }
    serve(|_| Ok(Sample::default().with("resident", resident_bytes()? - before)))
}

fn resident_bytes() -> io::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kilobytes.ok_or(io::ErrorKind::InvalidData)? * 1024.0)
}
