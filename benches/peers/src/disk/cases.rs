//! The reads of a load, as a case; and fio.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::measure::Allocator;
use crate::run::{Amount, Case, Effort, Method, Metric, Sample, Work, metric};

use super::load::{Load, Reader};

impl Case for Load {
    fn label(&self) -> String {
        let (key, pattern) =
            if self.random { ("random", "Random") } else { ("sequential", "Sequential") };
        let (kilobytes, depth) = (self.block_bytes / 1024, self.depth);
        format!("{key}-{depth}: {pattern} {kilobytes} KiB, depth {depth}")
    }

    fn metrics(&self) -> &'static [Metric] {
        const ALL: &[Metric] = &[
            metric("rate", "reads per second", "1/s", 1.0),
            metric("cpu", "CPU per read", "µs", 1e-3),
            metric("syscalls", "system calls per read", "number", 1.0),
        ];
        ALL
    }

    fn method(&self, effort: Effort) -> Method {
        let wall = Duration::from_millis(effort.choose(50, 300));
        let method = Method::rounds(1, effort.choose(3, 9), Amount::Wall(wall));
        // Memory that is taken from the heap is contiguous for the device.
        Method { allocator: Allocator::GlibcHuge, observed: true, ..method }
    }
}

/// Makes the work of a reader.
pub fn reads(mut reader: Box<dyn Reader>, load: Load) -> io::Result<Work> {
    reader.read(4 * load.depth as u64)?;
    Ok(Box::new(move |times| {
        let begin = Instant::now();
        reader.read(times)?;
        let rate = times as f64 / begin.elapsed().as_secs_f64();
        Ok(Sample::default().with("rate", rate))
    }))
}

pub const FIO_NOTE: &str = "io_uring engine, --direct=1 --fixedbufs --registerfiles \
                            --gtod_reduce=1 --iomem_align=2m; hands nothing out";

/// Asks fio for its version.
pub fn fio_version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// Has fio read for 0.3 s: the limit that others have written, as a program of its own. Its
/// allocator is that of this process.
pub fn fio(path: &Path, load: Load) -> io::Result<Sample> {
    let mut command = Command::new("fio");
    command.args(["--name=peer", "--ioengine=io_uring", "--direct=1", "--fixedbufs"]);
    command.args(["--registerfiles", "--thread", "--gtod_reduce=1", "--iomem_align=2m"]);
    command.args(["--time_based", "--runtime=300ms", "--cpus_allowed=0", "--output-format=json"]);
    command.arg(if load.random { "--rw=randread" } else { "--rw=read" });
    command.arg(format!("--bs={}", load.block_bytes));
    command.arg(format!("--iodepth={}", load.depth));
    command.arg(format!("--filename={}", path.display()));
    sample_of_fio(command, "\"read\"")
}

/// Runs fio. Takes the numbers from the part of what it writes that begins with `section`; times of
/// the processor are in per cent of the run.
pub fn sample_of_fio(mut command: Command, section: &str) -> io::Result<Sample> {
    let output = command.output()?;
    parse_fio(&String::from_utf8_lossy(&output.stdout), section)
        .ok_or_else(|| io::Error::other("fio gave no numbers"))
}

fn parse_fio(text: &str, section: &str) -> Option<Sample> {
    let section = text.split_once(section)?.1;
    let number = |name: &str| {
        let value = section.split_once(name)?.1.trim_start_matches([' ', ':']);
        value[..value.find([',', '\n'])?].trim().parse::<f64>().ok()
    };
    let rate = number("\"iops\"")?;
    let percent = number("\"usr_cpu\"")? + number("\"sys_cpu\"")?;
    Some(Sample::default().with("rate", rate).with("cpu", percent / 100.0 / rate * 1e9))
}
