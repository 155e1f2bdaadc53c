//! An `O_DIRECT` reader: many blocks at a time, from the disk into the slots of a registered arena.
//!
//! Each block becomes `Bytes` in its slot, without a copy. The blocks go in order to a consumer on
//! another thread, which computes the checksum and drops them. Each drop frees a slot for another
//! read. At the end the file is read once more by ordinary reads, and the checksums are compared.
//!
//! ```text
//! cargo run --release --example direct_reader                      # makes a file of 256 MiB
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
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consumer::Consumer;
use indicatif::BinaryBytes;
use options::Options;
use support::{Checksum, check_all_free, mistake, nonzero, say};
use uring_arena::{DirectFile, Driver, Event, FixedArena};

fn main() -> ExitCode {
    support::run(Options::parse, read_and_verify)
}

fn read_and_verify(options: &Options) -> Result<(), Box<dyn Error>> {
    support::need_descriptors(32)?;
    let bytes = slots(options) * options.block as u64;
    support::check_memory("two times --depth times --block", bytes)?;
    // What is made here has no name: it is opened by the path of its descriptor.
    let made = match &options.file {
        Some(_) => None,
        None => Some(test_file::make(options.bytes)?),
    };
    let path = match (&options.file, &made) {
        (None, Some(made)) => made.path(),
        (path, _) => path.clone().unwrap_or_default(),
    };
    let (file, len) = open(&path, options.buffered)?;
    let (checksum, effort) = Reader::new(options, file, len)?.run()?;
    effort.print(options, checksum.bytes);
    if !options.verify {
        say!("read {checksum}; not verified");
        return Ok(());
    }
    let expected = support::read_checksum(File::open(&path)?, len)?;
    if checksum != expected {
        return Err(mistake(format!(
            "{}: read {checksum}, but an ordinary read gives {expected}",
            path.display()
        )));
    }
    say!("verified {checksum}");
    Ok(())
}

/// Returns the number of slots: `depth` blocks in flight or waiting for an earlier block, up to
/// `depth` in the consumer's queue, and the block that the consumer works on.
fn slots(options: &Options) -> u64 {
    2 * options.depth as u64 + 1
}

/// Opens the file. Returns it with its length.
fn open(path: &Path, buffered: bool) -> Result<(File, u64), Box<dyn Error>> {
    let with_path = |error: std::io::Error| mistake(format!("{}: {error}", path.display()));
    if !path.metadata().map_err(with_path)?.is_file() {
        return Err(mistake(format!(
            "{}: not a regular file, so it has no length to read to; name another",
            path.display()
        )));
    }
    let file = if buffered {
        File::open(path).map_err(with_path)?
    } else {
        let direct = DirectFile::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::Unsupported => {
                mistake("this file system refuses O_DIRECT: add --buffered, or name another FILE")
            }
            _ => with_path(error),
        })?;
        direct.into_file()
    };
    let len = file.metadata().map_err(with_path)?.len();
    Ok((file, len))
}

/// The cost of reading the file.
struct Effort {
    mode: String,
    reads: u64,
    time: Duration,
    cpu: Duration,
}

impl Effort {
    fn print(&self, options: &Options, bytes: u64) {
        if bytes == 0 {
            return say!("reads      none: the file is empty");
        }
        let reads_per_s = self.reads as f64 / self.time.as_secs_f64().max(1e-9);
        say!("arena      {}", self.mode);
        say!(
            "reads      {} of {} each, {} at a time",
            self.reads,
            BinaryBytes(options.block as u64),
            options.depth
        );
        say!("rate       {reads_per_s:.0} IOPS, {}", support::rate(bytes, self.time));
        say!("CPU        {}", support::cpu_per_gb(bytes, self.cpu, "reader"));
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
        let slots = nonzero(slots(options))?;
        let arena = FixedArena::with_slot_capacity(slots, nonzero(options.block as u64)?)
            .alignment(4096)
            .build()?;
        let driver = Driver::builder().build()?;
        Ok(Reader { arena, driver, file, len, block: options.block as u64, depth: options.depth })
    }

    fn run(mut self) -> Result<(Checksum, Effort), Box<dyn Error>> {
        let (queue, consumer) = Consumer::start(self.depth);
        let id = self.driver.register(&self.arena)?;
        let registered = self.driver.arena(id)?;
        let mut mode = support::mode_name(registered.mode()).to_owned();
        for (better, error) in
            registered.refused().iter().filter(|_| !registered.mode().is_registered())
        {
            mode += &format!("\n           not {}: {error}", support::mode_name(*better));
        }
        let file = self.driver.add_file(self.file)?;

        let blocks = self.len.div_ceil(self.block);
        let bar = support::progress(self.len);
        let (started, cpu_before) = (Instant::now(), support::thread_cpu());
        // The blocks from number `consumed` on; `None` while a block is being read.
        let mut pending: VecDeque<Option<Bytes>> = VecDeque::new();
        let mut consumed = 0;
        while consumed < blocks {
            while pending.len() < self.depth && consumed + (pending.len() as u64) < blocks {
                let offset = (consumed + pending.len() as u64) * self.block;
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
                // Bytes that were appended since the length was read are left out.
                buffer.truncate(expected);
                pending[(offset / self.block - consumed) as usize] = Some(buffer.freeze());
            }
            while let Some(Some(_)) = pending.front() {
                let Some(Some(bytes)) = pending.pop_front() else { break };
                bar.inc(bytes.len() as u64);
                consumed += 1;
                queue.send(bytes)?;
            }
        }
        let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
        bar.finish_and_clear();
        drop(queue);
        let checksum = consumer.finish();
        let drained = self.driver.drain(Duration::from_secs(10))?;
        check_all_free(&self.arena, drained.in_flight)?;
        Ok((checksum, Effort { mode, reads: blocks, time, cpu }))
    }
}
