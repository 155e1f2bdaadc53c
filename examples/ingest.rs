//! From a socket to an `O_DIRECT` file: what arrives is written from the slot that it arrived in.
//!
//! A slot is filled from the socket, read by read, and when it is full the disk takes it from there
//! while the next one fills. The program copies nothing, and the page cache is not used. At the end
//! the file is read back and its checksum compared.
//!
//! ```text
//! cargo run --release --example ingest                                  # sends itself 1 GiB, and removes the file
//! cargo run --release --example ingest -- --listen 127.0.0.1:9000 FILE  # and then: nc -N 127.0.0.1 9000 < other
//! ```

#[path = "ingest/options.rs"]
mod options;
#[path = "ingest/sender.rs"]
mod sender;
mod support;

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BufMut;
use options::Options;
use sender::Sender;
use support::mistake;
use uring_arena::{Buffer, DirectFile, Driver, Event, FileId, FixedArena};

/// What every `O_DIRECT` device is content with: the last write is filled up to it, and the file
/// cut afterwards.
const STEP: usize = 4096;

fn main() -> ExitCode {
    support::run(|| match Options::parse()? {
        Some(options) => ingest(&options),
        None => Ok(()),
    })
}

fn ingest(options: &Options) -> Result<(), Box<dyn Error>> {
    let path = &options.file;
    let file = create(path, options.buffered)?;
    let keep = options.keep;
    let answer = ingest_into(options, file);
    if !keep {
        std::fs::remove_file(path)?;
    }
    answer
}

fn create(path: &Path, buffered: bool) -> Result<File, Box<dyn Error>> {
    let mut how = File::options();
    how.read(true).write(true).create(true).truncate(true);
    let opened = if buffered {
        how.open(path)
    } else {
        DirectFile::open_with(&how, path).map(DirectFile::into_file)
    };
    opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::Unsupported => mistake(format!("{error}: add --buffered")),
        _ => mistake(format!("{}: {error}", path.display())),
    })
}

fn ingest_into(options: &Options, file: File) -> Result<(), Box<dyn Error>> {
    let address = options.listen.as_deref().unwrap_or("127.0.0.1:0");
    let listener = TcpListener::bind(address).map_err(|error| {
        mistake(format!("--listen {address}: {error}; give a free ADDRESS:PORT of this machine"))
    })?;
    let sender = match options.listen {
        Some(_) => {
            println!("listening on {}", listener.local_addr()?);
            std::io::stdout().flush()?;
            None
        }
        None => Some(Sender::start(listener.local_addr()?, options.bytes)),
    };
    let (socket, _) = listener.accept()?;
    if sender.is_some() {
        // Room beforehand, where the length is known: a write that grows a file takes its lock
        // alone, and the kernel's workers spin for it. A file system that cannot do this only costs
        // more.
        let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, options.bytes);
    }

    let arena = FixedArena::with_slot_capacity(options.slots, options.slot_bytes)
        .alignment(STEP)
        .build()?;
    let bar = support::progress(options.bytes);
    let (started, cpu_before) = (Instant::now(), support::thread_cpu());
    let len =
        Ingest::new(&arena, socket, file.try_clone()?)?.run(|bytes| bar.set_position(bytes))?;
    file.set_len(len)?;
    let (time, cpu) = (started.elapsed(), support::thread_cpu() - cpu_before);
    bar.finish_and_clear();

    println!("bytes      {len}");
    println!("rate       {:.2} GB/s", support::gb_per_s(len, time));
    println!("CPU        {:.3} seconds per GB", support::cpu_per_gb(len, cpu));
    let leaked = arena.metrics().bytes_live;
    if leaked != 0 {
        return Err(mistake(format!("{leaked} bytes of slots leaked")));
    }
    let crc = checksum(&options.file)?;
    match sender.map(Sender::finish).transpose()? {
        None => println!("received {len} bytes, CRC-32C {crc:08x}"),
        Some(sent) if sent == (len, crc) => println!("verified {len} bytes, CRC-32C {crc:08x}"),
        Some((bytes, sent)) => {
            return Err(mistake(format!(
                "sent {bytes} bytes ({sent:08x}), the file has {len} ({crc:08x})"
            )));
        }
    }
    Ok(())
}

/// Of a file, through the page cache.
fn checksum(path: &Path) -> std::io::Result<u32> {
    let (mut file, mut block, mut crc) = (File::open(path)?, vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(crc),
            read => crc = crc32c::crc32c_append(crc, &block[..read]),
        }
    }
}

struct Ingest {
    driver: Driver,
    arena: FixedArena,
    socket: FileId,
    file: FileId,
    /// Where the next write goes.
    offset: u64,
    /// Bytes received.
    len: u64,
    writes: usize,
    is_reading: bool,
    ended: bool,
}

impl Ingest {
    fn new(arena: &FixedArena, socket: TcpStream, file: File) -> Result<Ingest, Box<dyn Error>> {
        let mut driver = Driver::builder().build()?;
        driver.register(arena)?;
        let (socket, file) = (driver.add_file(socket)?, driver.add_file(file)?);
        let arena = arena.clone();
        Ok(Ingest {
            driver,
            arena,
            socket,
            file,
            offset: 0,
            len: 0,
            writes: 0,
            is_reading: false,
            ended: false,
        })
    }

    /// Gives the number of bytes.
    fn run(mut self, mut tell: impl FnMut(u64)) -> Result<u64, Box<dyn Error>> {
        while !self.ended || self.writes > 0 {
            // One read at a time, so that bytes stay in order. With no slot free, a write that is
            // under way frees one.
            if !self.is_reading
                && !self.ended
                && let Ok(buffer) = self.arena.allocate()
            {
                self.read(buffer)?;
            }
            self.driver.wait()?;
            while let Some(event) = self.driver.next() {
                match event {
                    Event::Read { result, buffer, .. } => {
                        self.is_reading = false;
                        let read =
                            result.map_err(|error| mistake(format!("receiving: {error}")))?;
                        self.len += read as u64;
                        self.ended = read == 0;
                        if !self.ended && buffer.len() < buffer.capacity() {
                            self.read(buffer)?;
                        } else if !buffer.is_empty() {
                            self.write(buffer)?;
                        }
                    }
                    Event::Wrote { offset, result, payload, .. } => {
                        self.writes -= 1;
                        let written = result
                            .map_err(|error| mistake(format!("writing at {offset}: {error}")))?;
                        if written < payload.as_ref().len() {
                            return Err(mistake(format!(
                                "the disk took {written} bytes at {offset}, not all"
                            )));
                        }
                    }
                    _ => {}
                }
            }
            tell(self.len);
        }
        self.driver.drain(Duration::from_secs(10))?;
        Ok(self.len)
    }

    fn read(&mut self, buffer: Buffer) -> Result<(), Box<dyn Error>> {
        self.driver.read(self.socket, buffer, 0)?;
        self.is_reading = true;
        Ok(())
    }

    fn write(&mut self, mut buffer: Buffer) -> Result<(), Box<dyn Error>> {
        let padding = buffer.len().next_multiple_of(STEP) - buffer.len();
        buffer.put_bytes(0, padding);
        let len = buffer.len() as u64;
        self.driver.write(self.file, buffer, self.offset)?;
        self.offset += len;
        self.writes += 1;
        Ok(())
    }
}
