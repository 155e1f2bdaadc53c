//! fio, the limit that others have written, as a program of its own.

use std::io;
use std::process::Command;

use crate::Sample;
use crate::plan::{BLOCK_BYTES, DEPTH, TestFile};

/// One run of so many milliseconds.
pub fn run(file: &TestFile, milliseconds: u64) -> io::Result<Sample> {
    let output = Command::new("fio")
        .args(["--name=reads", "--ioengine=io_uring", "--direct=1", "--fixedbufs", "--registerfiles"])
        .args(["--rw=randread", "--thread", "--time_based", "--norandommap", "--output-format=terse"])
        .arg(format!("--bs={BLOCK_BYTES}"))
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--runtime={milliseconds}ms"))
        .arg(format!("--filename={}", file.path().display()))
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("fio cannot be run: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    sample(&text).ok_or_else(|| io::Error::other(format!("fio gave no numbers: {text}")))
}

/// In the terse form: field 8 is the reads a second, fields 88 and 89 are user and system time in per cent of the run.
fn sample(text: &str) -> Option<Sample> {
    let line = text.lines().find(|line| line.starts_with("3;"))?;
    let fields: Vec<&str> = line.split(';').collect();
    let percent = |at: usize| fields.get(at)?.strip_suffix('%')?.parse::<f64>().ok();
    let iops: f64 = fields.get(7)?.parse().ok()?;
    let cpu = percent(87)? + percent(88)?;
    Some(Sample { wall_ns: 1e9 / iops, cpu_ns: cpu / 100.0 * 1e9 / iops })
}
