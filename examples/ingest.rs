//! A socket written to an `O_DIRECT` file, from the slots that its bytes were received into.
//!
//! Reads from the socket fill one slot; when the slot is full, the disk takes it from there while
//! the next one fills. The program copies no byte, and the page cache is not used. At the end the
//! file is read back and its checksum compared.
//!
//! ```text
//! cargo run --release --example ingest                                  # sends itself 1 GiB
//! cargo run --release --example ingest -- --listen 127.0.0.1:9000 FILE
//! nc -N 127.0.0.1 9000 < OTHER                                          # in another shell
//! ```

#[path = "ingest/options.rs"]
mod options;
#[path = "ingest/sender.rs"]
mod sender;
mod support;

use std::error::Error;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::BufMut;
use options::Options;
use sender::Sender;
use support::{check_all_free, exact_bytes, mistake};
use uring_arena::{Buffer, DirectFile, Driver, Event, FileId, FixedArena};

/// An alignment that every `O_DIRECT` device accepts.
///
/// The last write is padded to it, and the file is cut to its length afterwards.
const STEP: usize = 4096;

fn main() -> ExitCode {
    support::run(Options::parse, ingest)
}

fn ingest(options: &Options) -> Result<(), Box<dyn Error>> {
    let file = create(&options.file, options.buffered)?;
    let result = ingest_into(options, file);
    if !options.keep {
        std::fs::remove_file(&options.file)?;
    }
    result
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
    let (socket, sender) = match &options.listen {
        Some(address) => {
            let listener = support::listen(address)?;
            support::announce(format!("listening on {}", listener.local_addr()?))?;
            (listener.accept()?.0, None)
        }
        None => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let sender = Sender::start(listener.local_addr()?, options.bytes);
            (listener.accept()?.0, Some(sender))
        }
    };
    if sender.is_some() {
        // A write that grows a file holds the inode's lock alone, and the kernel's workers spin
        // for it. So the room is reserved where the length is known; a file system that cannot do
        // this only costs more.
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

    println!("received   {}", exact_bytes(len));
    println!("rate       {:.2} GB/s", support::gb_per_s(len, time));
    println!("CPU        {:.3} seconds per GB", support::cpu_per_gb(len, cpu));
    check_all_free(&arena, 0)?;
    let written = support::read_checksum(&options.file, u64::MAX)?;
    match sender.map(Sender::finish).transpose()? {
        None => println!("wrote {written}"),
        Some(sent) if sent == written => println!("verified {written}"),
        Some(sent) => return Err(mistake(format!("sent {sent}, but the file has {written}"))),
    }
    Ok(())
}

struct Ingest {
    driver: Driver,
    arena: FixedArena,
    socket: FileId,
    file: FileId,
    /// The offset of the next write.
    offset: u64,
    /// The number of bytes received.
    len: u64,
    /// The number of writes in flight.
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

    /// Writes the whole stream to the file. Returns the number of bytes received.
    ///
    /// `report` is called with the number of bytes received so far.
    fn run(mut self, mut report: impl FnMut(u64)) -> Result<u64, Box<dyn Error>> {
        while !self.ended || self.writes > 0 {
            // One read at a time keeps the bytes in order. If no slot is free, the next write that
            // completes frees one.
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
                        let written = result.map_err(|error| {
                            mistake(format!("writing at offset {offset}: {error}"))
                        })?;
                        let len = payload.as_ref().len();
                        if written < len {
                            return Err(mistake(format!(
                                "the disk took {written} of {len} bytes at offset {offset}"
                            )));
                        }
                    }
                    _ => {}
                }
            }
            report(self.len);
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
