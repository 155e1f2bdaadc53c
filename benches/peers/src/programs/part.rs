//! The part `programs`: its cases and contenders.

use crate::report::Part;
use crate::run::{Effort, bind};

use super::echo::{ECHO, SERVERS};
use super::ingest::{INGEST, PROGRAMS};

const INTRODUCTION: &str = "\
Programs of the `examples` folder in one process each. Processor time is read from outside in \
nanoseconds, without the thread that makes the load, and a run takes five seconds of it (0.05 \
under `--quick`); system calls are counted by `perf stat` at full speed. Ingest: a stream from a \
socket to a file in blocks of 256 KiB; the first file of a run is read back and compared. Echo: 32 \
connections × 512 B on one core; one message to each, then all answers.";

pub fn part(effort: Effort) -> Part {
    let groups = vec![vec![bind(INGEST, &PROGRAMS, effort)], vec![bind(ECHO, &SERVERS, effort)]];
    Part::new("programs", "Whole programs", INTRODUCTION, groups)
}
