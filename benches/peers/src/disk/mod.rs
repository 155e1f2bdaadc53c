//! Reading past the page cache: how many reads a second, and what does each cost the processor?

mod figures;
mod file;
mod fio;
mod plan;
mod registering;
mod systems;

use std::io;
use std::path::Path;

use crate::harness::{Child, Effort, Progress, Sample, Tool, pin_to_core, serve};
use crate::report::{Comparison, Part, Plot, Row};

use file::TestFile;
use plan::{Load, Processor};
use systems::System;

const INTRODUCTION: &str = "\
`O_DIRECT` reads of one file on the disk of the target directory, so many in flight at all times, from one pinned thread; each system has a \
process of its own, rounds are interleaved. CPU per read is user and system time of the whole process, its helper threads and io_uring's \
workers included. Reads per second: more is better, so *ours ÷ this* above 1 is good; CPU per read: below 1 is good.";

pub fn run(effort: Effort, target: &Path) -> io::Result<Part> {
    let mut part = Part::new("disk", "Reading files", INTRODUCTION, effort);
    let loads = Load::all();
    let progress = Progress::begin("disk", loads.len() + 1);
    let file = TestFile::create(target, effort.choose(256, 1024) << 20)?;
    part.remarks.push(file.describe());
    if !Tool::Fio.is_installed() {
        let missing =
            "fio is left out, and with it the figures against it: it is not installed (apt-get install fio).";
        progress.aloud(missing);
        part.remarks.push(missing.into());
    }
    for load in loads {
        progress.step(&load.title());
        compare(load, &file, effort, &progress, &mut part);
    }
    progress.step("registering 1 GiB");
    registering::add(&mut part, effort);
    figures::add(&mut part);
    let mut plot = Plot::new(
        "cpu-per-read-by-depth",
        "Random 4 KiB reads: CPU per read by depth",
        "reads in flight",
        "µs per read",
    );
    plot.lines_from(&part, |key| key.strip_prefix("cpu-random-")?.parse().ok());
    part.plots.push(plot);
    Ok(part)
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
    let buffers = plan::registered_buffers() as f64;
    serve(|times| {
        let processor = Processor::now();
        let begin = std::time::Instant::now();
        reader.read(times)?;
        let taken = begin.elapsed();
        Ok(Sample::default()
            .with("rate", times as f64 / taken.as_secs_f64())
            .with("cpu", processor.elapsed().as_secs_f64() * 1e6 / times as f64)
            .with("registered", buffers))
    })
}

/// One contender: a child, or fio.
struct Entry {
    name: &'static str,
    note: String,
    round: Box<dyn FnMut() -> io::Result<Sample>>,
    samples: Vec<Sample>,
}

fn compare(load: Load, file: &TestFile, effort: Effort, progress: &Progress, part: &mut Part) {
    let mut entries = Vec::new();
    for system in System::ALL {
        match entry(system, load, file, effort) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                progress.aloud(&format!("left out: {} at {}: {error}", system.name(), load.title()))
            }
        }
    }
    if Tool::Fio.is_installed() {
        let path = file.path().to_owned();
        let length = effort.choose(150, 1000);
        entries.push(Entry {
            name: fio::NAME,
            note: fio::NOTE.into(),
            round: Box::new(move || fio::run(&path, load, length)),
            samples: Vec::new(),
        });
    }
    let rounds = effort.choose(3, 9);
    let count = entries.len();
    for round in 0..rounds {
        for turn in 0..count {
            let entry = &mut entries[(round + turn) % count];
            let sample = (entry.round)().unwrap_or_default();
            entry.samples.push(sample);
        }
    }
    let table = |what: &str| {
        let row = |entry: &Entry| {
            let values = entry.samples.iter().map(|sample| sample.get(what).unwrap_or(f64::NAN));
            Row::new(entry.name, &entry.note, values.collect())
        };
        entries.iter().map(row).collect()
    };
    let (key, title) = (load.key(), load.title());
    part.push(Comparison::new(
        &format!("rate-{key}"),
        &format!("{title}: reads per second"),
        "1/s",
        table("rate"),
    ));
    part.push(Comparison::new(&format!("cpu-{key}"), &format!("{title}: CPU per read"), "µs", table("cpu")));
}

fn entry(system: System, load: Load, file: &TestFile, effort: Effort) -> io::Result<Entry> {
    let path = file.path().to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Child::start(&["disk", &system.key(), &load.key(), path], "")?;
    // How much fills a round is known after a first one.
    let first = child.run(256)?;
    let seconds = effort.choose(0.15, 1.0);
    let times = (first.get("rate").unwrap_or(1000.0) * seconds) as u64;
    let mut note = system.note().to_owned();
    match first.get("registered") {
        Some(registered) if registered > 0.0 => note += &format!("; fdinfo: {registered} registered buffers"),
        _ => note += "; nothing registered",
    }
    let round = Box::new(move || child.run(times.max(64)));
    Ok(Entry { name: system.name(), note, round, samples: Vec::new() })
}
