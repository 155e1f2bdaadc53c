//! A stream brought from a socket to disk: from the slot it arrived in, or through tokio's buffers.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use uring_arena::{DirectFile, Driver, Event, FixedArena};

use crate::measure::registered_buffers;
use crate::report::OURS;
use crate::run::{Answer, Method, Question, Sample, Work, metric, to_io_error};

use super::stream::{BLOCK_BYTES, Load, check_and_remove, send};

pub const INGEST: Question = Question {
    label: "ingest: Ingest, socket to file",
    metrics: &[
        metric("cpu", "CPU per GB", "s", 1e-9),
        metric("wall", "time per GB by the wall clock", "s", 1.0),
        metric("syscalls", "system calls per MB", "number", 1e-3),
    ],
    method: Method::program,
};

pub static PROGRAMS: [Answer<Question>; 4] = [
    Answer::new(
        OURS,
        "`Driver`, registered slots, `O_DIRECT`, room reserved by `fallocate`",
        |_, scratch| Program { has_driver: true, reserves: true }.start(scratch),
    ),
    Answer::new("uring-arena, file grows", "the same without `fallocate`", |_, scratch| {
        Program { has_driver: true, reserves: false }.start(scratch)
    }),
    Answer::new(
        "tokio + tokio::fs",
        "current-thread runtime, `read_buf` into `BytesMut`, `write_all`; page cache",
        |_, scratch| Program { has_driver: false, reserves: false }.start(scratch),
    ),
    Answer::new("tokio + tokio::fs, room reserved", "the same after `fallocate`", |_, scratch| {
        Program { has_driver: false, reserves: true }.start(scratch)
    }),
];

/// A program that ingests.
#[derive(Clone, Copy)]
struct Program {
    /// The program is ours. Otherwise it is tokio's.
    has_driver: bool,
    /// The file's room is made beforehand. A write that grows a file takes the inode's lock alone,
    /// and io_uring's workers spin for it.
    reserves: bool,
}

impl Program {
    fn reserve(self, file: &File, bytes: usize) -> io::Result<()> {
        if !self.reserves {
            return Ok(());
        }
        // SAFETY: plain numbers, and a descriptor that is open.
        match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ingests so many MiB, in files of 256 MiB at most.
    fn start(self, scratch: &Path) -> io::Result<Work> {
        let load = Load::start();
        let path = scratch.join(format!("ingest-{}", std::process::id()));
        let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
        let builder = FixedArena::with_slot_capacity(nz(8)?, nz(BLOCK_BYTES)?).alignment(4096);
        let arena = builder.build().map_err(io::Error::other)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut registered = 0.0;
        Ok(Box::new(move |mebibytes| {
            let (mut left, mut wall) = (mebibytes as usize, Duration::ZERO);
            while left > 0 {
                let part = left.min(256);
                let (bytes, begin) = (part << 20, Instant::now());
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let address = listener.local_addr()?;
                load.begin(move || send(address, bytes));
                let socket = listener.accept()?.0;
                let done = match self.has_driver {
                    true => self.by_driver(&arena, socket, &path, bytes, &mut registered),
                    false => self.by_tokio(&runtime, socket, &path, bytes).map_err(Into::into),
                };
                done.map_err(to_io_error)?;
                load.wait()?;
                wall += begin.elapsed();
                // The first file of a run: reading all back would take as long as the run.
                let (path, is_first) = (path.clone(), left == mebibytes as usize);
                load.begin(move || check_and_remove(&path, bytes, is_first));
                load.wait()?;
                left -= part;
            }
            let gigabytes = (mebibytes << 20) as f64 / 1e9;
            Ok(Sample::default()
                .with("wall", wall.as_secs_f64() / gigabytes)
                .with("registered", registered)
                .with("operations", gigabytes))
        }))
    }

    /// Fills slots from the socket, and writes from the same slots past the page cache, while the
    /// next one fills.
    fn by_driver(
        self,
        arena: &FixedArena,
        socket: TcpStream,
        path: &Path,
        bytes: usize,
        registered: &mut f64,
    ) -> Result<(), Box<dyn Error>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        let file = DirectFile::open_with(&options, path)?.into_file();
        self.reserve(&file, bytes)?;
        let mut driver = Driver::builder().build()?;
        driver.register(arena)?;
        if *registered == 0.0 {
            *registered = registered_buffers(std::process::id());
        }
        let (socket, file) = (driver.add_file(socket)?, driver.add_file(file)?);
        let (mut received, mut offset, mut writes, mut is_reading) = (0, 0, 0, false);
        while received < bytes || writes > 0 {
            if !is_reading
                && received < bytes
                && let Ok(slot) = arena.allocate()
            {
                driver.read(socket, slot, 0)?;
                is_reading = true;
            }
            driver.wait()?;
            while let Some(event) = driver.next() {
                match event {
                    Event::Read { result, buffer, .. } => {
                        received += result?;
                        if buffer.len() < BLOCK_BYTES {
                            driver.read(socket, buffer, 0)?;
                            continue;
                        }
                        is_reading = false;
                        driver.write(file, buffer, offset)?;
                        offset += BLOCK_BYTES as u64;
                        writes += 1;
                    }
                    Event::Wrote { result, .. } => {
                        if result? != BLOCK_BYTES {
                            return Err("a write was shorter than asked".into());
                        }
                        writes -= 1;
                    }
                    _ => {}
                }
            }
        }
        driver.drain(Duration::from_secs(10))?;
        Ok(())
    }

    /// Goes through a `BytesMut`, and `tokio::fs` with its blocking threads and the page cache, as
    /// tokio's users write it.
    fn by_tokio(
        self,
        runtime: &Runtime,
        socket: TcpStream,
        path: &Path,
        bytes: usize,
    ) -> io::Result<()> {
        runtime.block_on(async {
            socket.set_nonblocking(true)?;
            let mut socket = tokio::net::TcpStream::from_std(socket)?;
            let file = File::create(path)?;
            self.reserve(&file, bytes)?;
            let mut file = tokio::fs::File::from_std(file);
            // Whole blocks to its threads, not its usual 2 MiB at most of small ones.
            file.set_max_buf_size(BLOCK_BYTES);
            let mut block = BytesMut::with_capacity(BLOCK_BYTES);
            loop {
                let read = socket.read_buf(&mut block).await?;
                if block.len() >= BLOCK_BYTES || read == 0 {
                    file.write_all(&block.split().freeze()).await?;
                    block.reserve(BLOCK_BYTES);
                }
                if read == 0 {
                    break;
                }
            }
            file.flush().await
        })
    }
}
