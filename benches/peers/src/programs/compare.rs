//! Both programs, one after the other.

use std::io;
use std::path::Path;

use crate::harness::{Effort, Progress};
use crate::report::Part;

use super::{echo, ingest};

const INTRODUCTION: &str = "\
Programs of the `examples` folder in one process each, rounds interleaved. Ingest: a stream from a socket to a file in blocks of 256 KiB, the \
receiving side's processor time per GB (the process's less the sending thread's); every file is read back and compared. \
Echo: 32 connections × 512 B on one core; one message to each, then all answers; the server thread's processor time per message, and the \
round by the wall clock.";

pub fn run(effort: Effort, target: &Path) -> io::Result<Part> {
    let progress = Progress::begin("programs", 2);
    let mut part = Part::new("programs", "Whole programs", INTRODUCTION, effort);
    progress.step("ingest");
    ingest::compare(target, effort, &progress, &mut part)?;
    progress.step("echo");
    echo::compare(effort, &progress, &mut part);
    Ok(part)
}

/// The child's side.
pub fn work(words: &[String]) -> io::Result<()> {
    match words.split_first() {
        Some((program, words)) if program == "ingest" => ingest::work(words),
        Some((program, words)) if program == "echo" => echo::work(words),
        _ => Err(io::Error::other("no such program")),
    }
}
