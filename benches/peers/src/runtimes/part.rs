//! The part `runtimes`: its cases and contenders.

use crate::receive::{Receiving, SYSTEMS, Shape};
use crate::report::Part;
use crate::run::{Effort, bind};

use super::reads::{BY_COMPIO, BY_TOKIO_URING, cached_reads, write_file};
use super::workers::{TWO_WORKERS, WORKERS};

const INTRODUCTION: &str = "\
Each runtime with our memory, beside the same loop with the runtime's own: in place, where nothing \
may leave the task, and in the forms that may. Receiving is in lockstep as in the part above; \
microseconds of processor time per message, of sender, receiver and helper threads, all on one \
core. Reading is of a file in the page cache, 4 KiB at a time, one after the other: the disk is \
not in it. Each system has a process of its own, started anew several times, because where a \
process's memory comes to lie is worth some per cent. Two workers of tokio are a whole program: a \
run takes five seconds of processor time (0.05 under `--quick`).";

pub fn part(effort: Effort) -> Part {
    let mut comparisons = Vec::new();
    for shape in [Shape::new(64, 512), Shape::new(512, 512)] {
        for runtime in ["tokio", "tokio-uring", "compio", "monoio"] {
            comparisons.push(bind(Receiving::Within(runtime, shape), &SYSTEMS, effort));
        }
    }
    comparisons.push(bind(TWO_WORKERS, &WORKERS, effort));
    for (label, readers) in [
        ("reads-tokio-uring: tokio-uring, 4 KiB reads from the page cache", &BY_TOKIO_URING),
        ("reads-compio: compio, 4 KiB reads from the page cache", &BY_COMPIO),
    ] {
        comparisons.push(bind(cached_reads(label), readers, effort));
    }
    let groups = comparisons.into_iter().map(|comparison| vec![comparison]).collect();
    Part { prepare: write_file, ..Part::new("runtimes", "In the runtimes", INTRODUCTION, groups) }
}
