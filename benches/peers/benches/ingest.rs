//! What does it cost to bring a stream from a socket to disk: from the slot it arrived in, or through tokio's buffers?
//!
//! Processor time of the receiving side alone (the process's less the sending thread's) per GB, rounds interleaved, median of ratios.
//! Both take blocks of the same size, fill them from the socket, and write each when it is full. Ours writes with `O_DIRECT`; tokio's
//! `tokio::fs` goes through the page cache, which is what its users do.
//! `cargo bench -p uring-arena-peers --bench ingest`.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uring_arena::{DirectFile, Driver, Event, FixedArena};

const BLOCK_BYTES: usize = 256 << 10;
const SLOTS: usize = 32;
const STREAM_BYTES: usize = 256 << 20;
const ROUNDS: usize = 7;

type Answer<T> = Result<T, Box<dyn Error>>;

/// Processor time so far in seconds: of the process, or of this thread.
fn cpu_seconds(who: libc::c_int) -> f64 {
    // SAFETY: all zero is a value of this plain struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one `rusage`, which is ours.
    unsafe { libc::getrusage(who, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Sends the stream; gives the processor time that this took.
fn send(to: SocketAddr) -> f64 {
    let block: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let mut socket = TcpStream::connect(to).expect("connecting on loopback");
    for _ in 0..STREAM_BYTES / BLOCK_BYTES {
        socket.write_all(&block).expect("sending on loopback");
    }
    cpu_seconds(libc::RUSAGE_THREAD)
}

/// Seconds of processor time per GB that `ingest` takes for one stream into `path`.
fn round(path: &Path, ingest: impl FnOnce(TcpStream, &Path) -> Answer<()>) -> Answer<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let before = cpu_seconds(libc::RUSAGE_SELF);
    let sender = std::thread::spawn(move || send(address));
    let (socket, _) = listener.accept()?;
    ingest(socket, path)?;
    let sending = sender.join().expect("the sender does not panic");
    let spent = cpu_seconds(libc::RUSAGE_SELF) - before - sending;
    verify(path)?;
    std::fs::remove_file(path)?;
    Ok(spent / (STREAM_BYTES as f64 / 1e9))
}

/// Both sides must have done the work.
fn verify(path: &Path) -> Answer<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    for _ in 0..STREAM_BYTES / BLOCK_BYTES {
        file.read_exact(&mut block)?;
        assert!(block.iter().enumerate().step_by(997).all(|(at, &byte)| byte == (at * 31 % 251) as u8));
    }
    assert_eq!(file.read(&mut block)?, 0, "more was written than sent");
    Ok(())
}

fn ours(arena: &FixedArena, socket: TcpStream, path: &Path) -> Answer<()> {
    let mut how = File::options();
    how.write(true).create(true).truncate(true);
    let file = DirectFile::open_with(&how, path)?.into_file();
    // Blocks of its own beforehand: a write that grows a file takes the inode's lock alone, and the kernel's workers
    // spin for it.
    // SAFETY: plain numbers, and a descriptor that is open.
    let answer = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, STREAM_BYTES as libc::off_t) };
    assert_eq!(answer, 0, "reserving room for the file: {}", std::io::Error::last_os_error());
    let mut driver = Driver::builder().build()?;
    driver.register(arena)?;
    let (socket, file) = (driver.file(socket)?, driver.file(file)?);
    let (mut received, mut offset, mut writes, mut is_reading) = (0, 0u64, 0, false);
    while received < STREAM_BYTES || writes > 0 {
        if !is_reading
            && received < STREAM_BYTES
            && let Ok(buffer) = arena.allocate()
        {
            driver.read(socket, buffer, 0)?;
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
                    assert_eq!(result?, BLOCK_BYTES);
                    writes -= 1;
                }
                _ => {}
            }
        }
    }
    driver.drain(Duration::from_secs(10))?;
    Ok(())
}

fn tokio_side(socket: TcpStream, path: &Path) -> Answer<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        socket.set_nonblocking(true)?;
        let mut socket = tokio::net::TcpStream::from_std(socket)?;
        let mut file = tokio::fs::File::create(path).await?;
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
        file.flush().await?;
        Ok(())
    })
}

fn main() -> Answer<()> {
    let nz = |n| NonZeroUsize::new(n).expect("not zero");
    let arena = FixedArena::with_slot_capacity(nz(SLOTS), nz(BLOCK_BYTES)).alignment(4096).build()?;
    let path = std::env::current_exe()?.with_file_name("ingest-bench.tmp");
    let (mut ratios, mut us, mut them) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=ROUNDS {
        let a = round(&path, |socket, path| ours(&arena, socket, path))?;
        let b = round(&path, tokio_side)?;
        if number > 0 {
            // The first round warms up.
            ratios.push(a / b);
            us.push(a);
            them.push(b);
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "ingest, CPU seconds per GB: uring-arena {:.3}, tokio {:.3}; ratio {:.3} ({:.3}–{:.3}), at most 0.6",
        median(&mut us),
        median(&mut them),
        median(&mut ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
    Ok(())
}
