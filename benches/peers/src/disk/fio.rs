//! fio: the limit that others have written, as a program of its own.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::harness::Sample;

use super::plan::Load;

pub const NAME: &str = "fio";
pub const NOTE: &str = "io_uring engine, --direct=1 --fixedbufs --registerfiles --gtod_reduce=1 --iomem_align=2m; hands nothing out";

/// Which one, as it says itself.
pub fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// One run of so many milliseconds.
pub fn run(path: &Path, load: Load, milliseconds: u64) -> io::Result<Sample> {
    let mut command = Command::new("fio");
    command.envs(super::compare::ALLOCATOR.environment());
    command.args([
        "--name=peer",
        "--ioengine=io_uring",
        "--direct=1",
        "--fixedbufs",
        "--registerfiles",
    ]);
    command.args([
        "--thread",
        "--gtod_reduce=1",
        "--iomem_align=2m",
        "--time_based",
        "--cpus_allowed=0",
        "--output-format=json",
    ]);
    command.arg(if load.random { "--rw=randread" } else { "--rw=read" });
    command.arg(format!("--bs={}", load.block_bytes));
    command.arg(format!("--iodepth={}", load.depth));
    command.arg(format!("--runtime={milliseconds}ms"));
    command.arg(format!("--filename={}", path.display()));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    sample(&text).ok_or_else(|| io::Error::other("fio gave no numbers"))
}

/// Times of the processor are in per cent of the run.
fn sample(text: &str) -> Option<Sample> {
    let reads = text.split_once("\"read\"")?.1;
    let rate = number(reads, "\"iops\"")?;
    let percent = number(reads, "\"usr_cpu\"")? + number(reads, "\"sys_cpu\"")?;
    Some(Sample::default().with("rate", rate).with("cpu", percent / 100.0 / rate * 1e6))
}

fn number(text: &str, name: &str) -> Option<f64> {
    let value = text.split_once(name)?.1.trim_start_matches([' ', ':']);
    let end = value.find([',', '\n'])?;
    value[..end].trim().parse().ok()
}
