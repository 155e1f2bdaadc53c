//! Each load to each system: a process for each, all taking their turns on one file.

use std::io;
use std::path::Path;

use crate::harness::{
    Allocator, Child, Effort, Progress, Sample, Tool, pin_to_core, registered_buffers, serve,
    take_turns,
};
use crate::report::{Comparison, Part, Plot, Row};

use super::file::TestFile;
use super::plan::{self, Load, Processor};
use super::systems::System;
use super::{figures, fio, registering};

const INTRODUCTION: &str = "\
`O_DIRECT` reads of one file on the disk of the target directory, so many in flight at all times, from one pinned thread; each system has a \
process of its own, rounds are interleaved. CPU per read is user and system time of the whole process, its helper threads and io_uring's \
workers included. Reads per second: more is better, so *ours ÷ this* above 1 is good; CPU per read: below 1 is good. \
All memory is touched beforehand and lies on huge pages, fio's and glommio's too (through glibc's `malloc.hugetlb`): on scattered small pages a \
read of 128 KiB takes a descriptor per page, and a device whose ring has 256 of them works on seven such reads at a time, whoever asks.";

/// Of all children and of fio: their memory, where they take it from the heap, is contiguous for
/// the device.
pub const ALLOCATOR: Allocator = Allocator::GlibcHuge;

pub fn run(effort: Effort, target: &Path) -> io::Result<Part> {
    let mut part = Part::new("disk", "Reading files", INTRODUCTION, effort);
    let loads = Load::measured_with(effort);
    let progress = Progress::begin("disk", loads.len() + 2);
    progress.step("writing the file");
    let file = TestFile::create(target, effort.choose(256, 1024) << 20)?;
    part.remarks.push(file.describe());
    if !Tool::Fio.is_installed() {
        let missing = "fio is left out, and with it the figures against it: it is not installed (apt-get install fio).";
        progress.aloud(missing);
        part.remarks.push(missing.into());
    }
    part.remarks.extend(fio::version().map(|version| format!("fio is {version}.")));
    for load in loads {
        progress.step(&load.title());
        compare(load, &file, effort, &progress, &mut part);
    }
    progress.step("registering 1 GiB");
    registering::add(&mut part, effort);
    figures::add(&mut part);
    Ok(part)
}

/// What the part's tables say, as a picture.
pub fn draw(part: &mut Part) {
    let mut plot = Plot::new(
        "cpu-per-read-by-depth",
        "Random 4 KiB reads: CPU per read by depth",
        "reads in flight",
        "µs per read",
    );
    plot.lines_from(part, |key| key.strip_prefix("cpu-random-")?.parse().ok());
    part.plots.push(plot);
}

/// The child's side: `<system> <load> <file>`.
pub fn work(words: &[String]) -> io::Result<()> {
    pin_to_core(0);
    let unknown = || io::Error::other("no such system or load");
    let [system, load, path] = words else {
        return Err(unknown());
    };
    let system = System::parse(system).ok_or_else(unknown)?;
    let load = Load::parse(load).ok_or_else(unknown)?;
    let mut reader = system.start(Path::new(path), load)?;
    reader.read(4 * load.depth as u64)?;
    let buffers = registered_buffers();
    serve(|times| {
        let processor = Processor::now();
        let begin = std::time::Instant::now();
        reader.read(times)?;
        let taken = begin.elapsed();
        Ok(Sample::default()
            .with("rate", times as f64 / taken.as_secs_f64())
            .with("cpu", processor.elapsed().as_secs_f64() * 1e6 / times as f64)
            .with("registered", buffers)
            .with("huge", plan::huge_mebibytes()))
    })
}

/// One contender: a child, or fio.
struct Entry {
    name: &'static str,
    note: String,
    round: Box<dyn FnMut() -> io::Result<Sample>>,
}

fn compare(load: Load, file: &TestFile, effort: Effort, progress: &Progress, part: &mut Part) {
    let mut entries = Vec::new();
    for system in System::measured_with(effort) {
        match entry(system, load, file, effort) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                progress.aloud(&format!("left out: {} at {}: {error}", system.name(), load.title()))
            }
        }
    }
    if Tool::Fio.is_installed() {
        let path = file.path().to_owned();
        let length = effort.choose(100, 300);
        entries.push(Entry {
            name: fio::NAME,
            note: fio::NOTE.into(),
            round: Box::new(move || fio::run(&path, load, length)),
        });
    }
    let answers = take_turns(&mut entries, effort.choose(3, 9), |entry| (entry.round)());
    let table = |what: &str| {
        let rows = entries.iter().zip(&answers);
        rows.map(|(entry, own)| Row::new(entry.name, &own.note(&entry.note), own.values(what)))
            .collect()
    };
    let (key, title) = (load.key(), load.title());
    part.push(Comparison::new(
        &format!("rate-{key}"),
        &format!("{title}: reads per second"),
        "1/s",
        table("rate"),
    ));
    part.push(Comparison::new(
        &format!("cpu-{key}"),
        &format!("{title}: CPU per read"),
        "µs",
        table("cpu"),
    ));
}

fn entry(system: System, load: Load, file: &TestFile, effort: Effort) -> io::Result<Entry> {
    let path = file.path().to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Child::start(&["disk", &system.key(), &load.key(), path], ALLOCATOR)?;
    // How much fills a round is known after a first one.
    let first = child.run(256)?;
    let seconds = effort.choose(0.1, 0.3);
    let times = (first.get("rate").unwrap_or(1000.0) * seconds) as u64;
    let huge = first.get("huge").unwrap_or(0.0);
    let note = format!("{}; {huge:.0} MiB on huge pages", system.note());
    let round = Box::new(move || child.run(times.max(64)));
    Ok(Entry { name: system.name(), note, round })
}
