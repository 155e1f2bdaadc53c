//! An append-only store: records in a log that is written past the page cache, many by one commit.
//!
//! A batch of records is one write of whole blocks and one `fdatasync`; while the disk works, the
//! next batch fills. A record counts when its sync is over. The program replays its own writes up
//! to every point at which it might have been killed, and reads each such disk as after a crash.
//!
//! ```text
//! cargo run --release --example log_store -- [FILE]    # without: one that goes with the program
//! ```

#[path = "log_store/crash.rs"]
mod crash;
#[path = "log_store/log.rs"]
mod log;
#[path = "log_store/store.rs"]
mod store;
mod support;

use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crash::{check, crash_everywhere, payload};
use log::{BLOCK, HEADER, record_at, recover};
use store::Store;
use support::{CommandLine, UnnamedFile, check_all_free, count, mistake, nonzero, say};

const LINE: CommandLine = CommandLine {
    help: "\
Appends records to a log with O_DIRECT and group commit, and proves that it survives a crash.

Usage: log_store [OPTIONS] [FILE]
  FILE              the log, which is made anew (a file without a name, in the current folder)
  --records N       records to append (20000)
  --record-bytes N  bytes of a record at most, 1 to 4076 (4076)
  --depth N         records of a commit at most (32)
  --buffered        use the page cache, for a file system without O_DIRECT",
    options: &["--records", "--record-bytes", "--depth"],
    flags: &["--buffered"],
    operands: &["FILE"],
};

struct Options {
    path: Option<PathBuf>,
    records: NonZeroUsize,
    record_bytes: NonZeroUsize,
    depth: NonZeroUsize,
    is_buffered: bool,
}

fn parse() -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        path: None,
        records: nonzero(20_000)?,
        record_bytes: nonzero(BLOCK - HEADER)?,
        depth: nonzero(32)?,
        is_buffered: false,
    };
    let most = BLOCK - HEADER;
    let given = LINE.parse(|name, value| {
        match name {
            "--records" => options.records = count(name, value, 1 << 32, "they take hours")?,
            "--record-bytes" => {
                options.record_bytes = count(name, value, most, "a record lies in one block")?;
            }
            "--depth" => options.depth = count(name, value, 256, "more gain nothing")?,
            _ => options.path = Some(value.into()),
        }
        Ok(())
    })?;
    let Some(given) = given else { return Ok(None) };
    options.is_buffered = given.has("--buffered");
    Ok(Some(options))
}

fn main() -> ExitCode {
    support::run(parse, run)
}

fn open(options: &Options) -> Result<(File, UnnamedFile), Box<dyn Error>> {
    let unnamed = UnnamedFile::new_in(".".as_ref())?;
    let mut open = File::options();
    open.read(true).write(true);
    let path = match &options.path {
        Some(path) => {
            open.create(true).truncate(true);
            path.clone()
        }
        None => unnamed.path(),
    };
    if !options.is_buffered {
        open.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    }
    let file = open.open(&path).map_err(|error| {
        mistake(format!(
            "{}: {error}; a file system without O_DIRECT needs --buffered",
            path.display()
        ))
    })?;
    Ok((file, unnamed))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (most, depth) = (options.record_bytes.get(), options.depth.get());
    let records = options.records.get() as u64;
    let (file, _unnamed) = open(options)?;
    let again = file.try_clone()?;
    let mut store = Store::new(file, depth)?;
    store.reserve(records * BLOCK.min(most as u64 + HEADER) + BLOCK)?;

    let (started, cpu) = (Instant::now(), support::thread_cpu());
    for number in 0..records {
        store.append(&payload(number, most), depth)?;
    }
    while store.durable < records {
        store.wait()?;
    }
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu);
    say!("appended   {records} records, {:.0} a second", records as f64 / time.as_secs_f64());
    say!("commits    {}, {:.1} records each", store.commits, records as f64 / store.commits as f64);
    say!("rate       {}", support::rate(store.end, time));
    say!("CPU        {}", support::cpu_per_gb(store.end, cpu, "store"));

    let mut log = vec![0; store.end as usize];
    let path = support::path_of(&again);
    File::open(path)?.read_exact_at(&mut log, 0)?;
    let index = recover(&log);
    check(&log, &index, records, records, most)?;
    for number in (0..records).step_by(records as usize / 100 + 1) {
        let at = index[number as usize];
        let block = store.read(at)?;
        let found = record_at(&block, at % BLOCK as usize, number);
        if found != Some(&payload(number, most)[..]) {
            return Err(mistake(format!("record {number} is not where the index says")));
        }
    }
    let crashes = crash_everywhere(&store.trace, most)?;
    let drained = store.driver.drain(Duration::from_secs(10))?;
    let arena = store.arena.clone();
    drop(store);
    check_all_free(&arena, drained.in_flight)?;
    say!("verified {records} records, and the log after {crashes} crashes");
    Ok(())
}
