//! Reads a file with `O_DIRECT`, many blocks at a time, from the disk straight into the slots of a
//! registered arena.
//!
//! Each block that is read becomes `Bytes` in its slot, without a copy, and goes in order to a
//! consumer on another thread, which takes the checksum and drops it there; the slot is then free
//! for another read. At the end the file is read once more, the ordinary way, and the checksums
//! compared.
//!
//! ```text
//! cargo run --release --example direct_reader                      # makes a file of 256 MiB, and removes it
//! cargo run --release --example direct_reader -- --depth 8 FILE
//! ```

#[path = "direct_reader/consumer.rs"]
mod consumer;
#[path = "direct_reader/options.rs"]
mod options;
mod support;
#[path = "direct_reader/test_file.rs"]
mod test_file;

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consumer::{Consumer, Summary};
use options::Options;
use support::mistake;
use test_file::TestFile;
use uring_arena::{DirectFile, Driver, Event, FixedArena};

fn main() -> ExitCode {
    support::run(|| match Options::parse()? {
        Some(options) => read_and_verify(&options),
        None => Ok(()),
    })
}

fn read_and_verify(options: &Options) -> Result<(), Box<dyn Error>> {
    let made = match &options.file {
        Some(_) => None,
        None => Some(TestFile::make(options.bytes)?),
    };
    let path =
        options.file.as_deref().or(made.as_ref().map(TestFile::path)).unwrap_or(Path::new(""));
    let (file, len) = open(path, options.buffered)?;
    let (summary, effort) = Reader::new(options, file, len)?.run()?;
    effort.print(options, summary.bytes);
    if !options.verify {
        println!("read {} bytes, CRC-32C {:08x}, not verified", summary.bytes, summary.crc);
        return Ok(());
    }
    let expected = consumer::read_ordinarily(path, len)?;
    if summary != expected {
        return Err(mistake(format!(
            "{}: read {summary}, but an ordinary read gives {expected}",
            path.display()
        )));
    }
    println!("verified {} bytes, CRC-32C {:08x}", summary.bytes, summary.crc);
    Ok(())
}

/// Opens the file and tells its length.
fn open(path: &Path, buffered: bool) -> Result<(File, u64), Box<dyn Error>> {
    let told = |error: std::io::Error| mistake(format!("{}: {error}", path.display()));
    if !path.metadata().map_err(told)?.is_file() {
        return Err(mistake(format!(
            "{}: not a regular file, so it has no length to read to",
            path.display()
        )));
    }
    let file = if buffered {
        File::open(path).map_err(told)?
    } else {
        let direct = DirectFile::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::Unsupported => mistake(format!("{error}: add --buffered")),
            _ => told(error),
        })?;
        direct.into_file()
    };
    let len = file.metadata().map_err(told)?.len();
    Ok((file, len))
}

/// What the reading cost.
struct Effort {
    mode: String,
    reads: u64,
    time: Duration,
    cpu: Duration,
}

impl Effort {
    fn print(&self, options: &Options, bytes: u64) {
        if bytes == 0 {
            return println!("reads      none: the file is empty");
        }
        let reads_per_s = self.reads as f64 / self.time.as_secs_f64().max(1e-9);
        println!("arena      {}", self.mode);
        println!(
            "reads      {} of {} bytes, {} at a time",
            self.reads, options.block, options.depth
        );
        println!(
            "rate       {reads_per_s:.0} IOPS, {:.2} GB/s",
            support::gb_per_s(bytes, self.time)
        );
        println!("CPU        {:.3} reader seconds per GB", support::cpu_per_gb(bytes, self.cpu));
    }
}

struct Reader {
    arena: FixedArena,
    driver: Driver,
    file: File,
    len: u64,
    block: u64,
    depth: usize,
}

impl Reader {
    fn new(options: &Options, file: File, len: u64) -> Result<Reader, Box<dyn Error>> {
        // Blocks with the kernel or waiting for an earlier one, blocks in the consumer's queue, and
        // the one in its hands.
        let slots = NonZeroUsize::new(2 * options.depth + 1).ok_or_else(|| mistake("--depth 0"))?;
        let block = NonZeroUsize::new(options.block).ok_or_else(|| mistake("--block 0"))?;
        support::check_memory(
            "--depth times two times --block",
            (slots.get() * block.get()) as u64,
        )?;
        let arena = FixedArena::with_slot_capacity(slots, block).alignment(4096).build()?;
        let driver = Driver::builder().build()?;
        Ok(Reader { arena, driver, file, len, block: options.block as u64, depth: options.depth })
    }

    fn run(mut self) -> Result<(Summary, Effort), Box<dyn Error>> {
        let (queue, consumer) = Consumer::start(self.depth);
        let id = self.driver.register(&self.arena)?;
        let registered = self.driver.arena(id)?;
        let mut mode = format!("{:?}", registered.mode());
        for (better, error) in
            registered.refused().iter().filter(|_| !registered.mode().is_registered())
        {
            mode += &format!("\n           not {better:?}: {error}");
        }
        let file = self.driver.add_file(self.file)?;

        let blocks = self.len.div_ceil(self.block);
        let bar = support::progress(self.len);
        let (started, cpu_before) = (Instant::now(), support::thread_cpu());
        // Blocks from `handed` on: `None` while they are being read.
        let mut pending: VecDeque<Option<Bytes>> = VecDeque::new();
        let mut handed = 0;
        while handed < blocks {
            while pending.len() < self.depth && handed + (pending.len() as u64) < blocks {
                let offset = (handed + pending.len() as u64) * self.block;
                self.driver.read(file, self.arena.allocate()?, offset)?;
                pending.push_back(None);
            }
            self.driver.wait()?;
            while let Some(event) = self.driver.next() {
                let Event::Read { offset, result, mut buffer, .. } = event else { continue };
                let read = result
                    .map_err(|error| mistake(format!("reading at offset {offset}: {error}")))?;
                let expected = self.block.min(self.len - offset) as usize;
                if read < expected {
                    let end = offset + read as u64;
                    return Err(mistake(format!(
                        "the file shrank while it was read: it had {} bytes, and now ends at {end} or before; read it again",
                        self.len
                    )));
                }
                // What was appended meanwhile is not part of it.
                buffer.truncate(expected);
                pending[(offset / self.block - handed) as usize] = Some(buffer.freeze());
            }
            while let Some(Some(_)) = pending.front() {
                let Some(Some(bytes)) = pending.pop_front() else { break };
                bar.inc(bytes.len() as u64);
                handed += 1;
                queue.send(bytes)?;
            }
        }
        let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
        bar.finish_and_clear();
        drop(queue);
        let summary = consumer.finish();
        let drained = self.driver.drain(Duration::from_secs(10))?;
        let leaked = self.arena.metrics().bytes_live / self.arena.slot_capacity();
        if leaked != 0 || drained.in_flight != 0 {
            return Err(mistake(format!(
                "{leaked} slots leaked, {} operations left",
                drained.in_flight
            )));
        }
        Ok((summary, Effort { mode, reads: blocks, time, cpu }))
    }
}
