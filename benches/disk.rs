//! What reading a disk costs beside a bare loop and beside fio, and what registering costs on each rung.
//!
//! Random reads of 4 KiB with `O_DIRECT`, 32 at a time, from a registered file into registered memory. The systems take turns round by
//! round, and the figures are medians of the ratios of neighbouring rounds: two shared cores scatter by more than what is asked here.
//!
//! ```text
//! cargo bench --bench disk [-- ROUNDS]
//! ```

#[path = "disk/bare.rs"]
mod bare;
#[path = "disk/driven.rs"]
mod driven;
#[path = "disk/fio.rs"]
mod fio;
#[path = "disk/pieces.rs"]
mod pieces;
#[path = "disk/plan.rs"]
mod plan;
#[path = "disk/registering.rs"]
mod registering;

use std::io;
use std::time::{Duration, Instant};

use plan::{BLOCK_BYTES, DEPTH, Places, TestFile};

/// One system under test.
trait System {
    fn name(&self) -> &'static str;

    /// Reads a block at each of the places, [`DEPTH`] at a time.
    fn read(&mut self, places: &mut Places) -> io::Result<()>;
}

/// What one round took.
#[derive(Clone, Copy)]
struct Sample {
    /// Time of a read, in nanoseconds: the inverse of IOPS.
    wall_ns: f64,
    /// Processor time of a read, in nanoseconds.
    cpu_ns: f64,
}

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    let rounds =
        std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(if bench { 40 } else { 2 });
    let reads = if bench { 20_000 } else { 200 };
    if let Err(error) = compare(rounds, reads, bench) {
        println!("SKIPPED reads: {error}");
    }
    if let Err(error) = registering::compare(if bench { 15 } else { 1 }, bench) {
        println!("SKIPPED registering: {error}");
    }
}

fn compare(rounds: usize, reads: u64, bench: bool) -> io::Result<()> {
    let file = TestFile::make(if bench { 1 << 30 } else { 4 << 20 })?;
    let mut systems: [Box<dyn System>; 3] = [
        Box::new(bare::Bare::start(&file)?),
        Box::new(pieces::Pieces::start(&file)?),
        Box::new(driven::Driven::start(&file)?),
    ];
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for round in 0..rounds {
        // The same places for all, and another one goes first each time.
        for turn in 0..systems.len() {
            let at = (turn + round) % systems.len();
            let mut places = Places::new(&file, reads, round as u64);
            samples[at].push(measure(systems[at].as_mut(), &mut places, reads)?);
        }
    }
    println!("random reads of {BLOCK_BYTES} B, depth {DEPTH}, {rounds} rounds of {reads}");
    for (system, taken) in systems.iter().zip(&samples) {
        let wall = median(taken.iter().map(|sample| sample.wall_ns));
        let cpu = median(taken.iter().map(|sample| sample.cpu_ns));
        let iops_ratio = median(taken.iter().zip(&samples[0]).map(|(own, bare)| bare.wall_ns / own.wall_ns));
        let cpu_ratio = median(taken.iter().zip(&samples[0]).map(|(own, bare)| own.cpu_ns / bare.cpu_ns));
        println!(
            "  {:<24} {:>8.0} IOPS {:>7.0} ns CPU a read   of the bare loop: IOPS {iops_ratio:.3}, CPU {cpu_ratio:.3}",
            system.name(),
            1e9 / wall,
            cpu
        );
    }
    if bench {
        beside_fio(&file, &mut systems, reads)?;
    }
    Ok(())
}

fn beside_fio(file: &TestFile, systems: &mut [Box<dyn System>], reads: u64) -> io::Result<()> {
    let mut ratios: Vec<(f64, f64)> = Vec::new();
    for round in 0..9 {
        let by_fio = match fio::run(file, 1500) {
            Ok(sample) => sample,
            Err(error) => {
                println!("  SKIPPED fio: {error}");
                return Ok(());
            }
        };
        let mut places = Places::new(file, 3 * reads, 1000 + round);
        let own = measure(systems[1].as_mut(), &mut places, 3 * reads)?;
        if round > 0 {
            ratios.push((by_fio.wall_ns / own.wall_ns, own.cpu_ns / by_fio.cpu_ns));
        }
    }
    let iops = median(ratios.iter().map(|(iops, _)| *iops));
    let cpu = median(ratios.iter().map(|(_, cpu)| *cpu));
    println!("  {:<24} of fio --fixedbufs --registerfiles: IOPS {iops:.3}, CPU {cpu:.3}", systems[1].name());
    Ok(())
}

fn measure(system: &mut dyn System, places: &mut Places, reads: u64) -> io::Result<Sample> {
    let (start, cpu_before) = (Instant::now(), thread_cpu());
    system.read(places)?;
    let (wall, cpu) = (start.elapsed(), thread_cpu() - cpu_before);
    let each = |time: Duration| time.as_secs_f64() * 1e9 / reads as f64;
    Ok(Sample { wall_ns: each(wall), cpu_ns: each(cpu) })
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
