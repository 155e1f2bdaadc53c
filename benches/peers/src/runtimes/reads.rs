//! Reads of a file in the page cache, one after the other: into slots of ours, or into a vector.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use compio::io::AsyncReadAt;
use uring_arena::FixedArena;

use crate::measure::Stopwatch;
use crate::run::{Amount, Answer, Effort, Method, Metric, Question, Sample, Work, metric};
use crate::tasks::{self, Runtime, Settings};

const READ_BYTES: usize = 4096;
/// The number of reads in one pass through the file.
const READS: usize = 256;

fn file(scratch: &Path) -> PathBuf {
    scratch.join("cached")
}

/// Writes the file, small enough to stay in the page cache.
pub fn write_file(scratch: &Path, _: Effort) -> io::Result<Vec<String>> {
    fs::write(file(scratch), vec![7; READS * READ_BYTES])?;
    Ok(Vec::new())
}

const METRICS: &[Metric] = &[metric("read", "", "ns", 1.0)];

pub fn cached_reads(label: &'static str) -> Question {
    // A pass is about a millisecond.
    let method = |effort: Effort| {
        let method = Method::rounds(effort.choose(1, 4), 16, Amount::Times(16));
        Method { observed: true, ..method }
    };
    Question { label, metrics: METRICS, method }
}

const OURS: &str = "`Registered`; a new slot per read, frozen to `Bytes` and dropped";
const OWN: &str = "one `Vec`, used again in place; default settings on both sides";

pub static BY_TOKIO_URING: [Answer<Question>; 2] = [
    Answer::new("uring-arena on tokio-uring", OURS, |_, scratch| ours_tokio_uring(&file(scratch))),
    Answer::new("tokio-uring read_at", OWN, |_, scratch| own_tokio_uring(&file(scratch))),
];

pub static BY_COMPIO: [Answer<Question>; 2] = [
    Answer::new("uring-arena on compio", OURS, |_, scratch| ours_compio(&file(scratch))),
    Answer::new("compio read_at", OWN, |_, scratch| own_compio(&file(scratch))),
];

/// Makes passes of reads; each read takes the place, and gives back how many bytes came.
fn passes<R: Runtime>(
    mut runtime: R,
    mut read: impl AsyncFnMut(u64) -> io::Result<usize> + 'static,
) -> io::Result<Work> {
    Ok(Box::new(move |times| {
        let begin = Stopwatch::process();
        for _ in 0..times {
            runtime.block_on(async {
                let mut place = 0;
                while place < READS * READ_BYTES {
                    place += read(place as u64).await?;
                }
                io::Result::Ok(())
            })?;
        }
        let each = begin.elapsed().as_nanos() as f64 / (times * READS as u64) as f64;
        Ok(Sample::default().with("read", each))
    }))
}

fn arena() -> io::Result<FixedArena> {
    let nz = |number| NonZeroUsize::new(number).ok_or(io::ErrorKind::InvalidInput);
    let builder = FixedArena::with_slot_capacity(nz(1024)?, nz(READ_BYTES)?);
    builder.alignment(4096).build().map_err(io::Error::other)
}

fn ours_tokio_uring(path: &Path) -> io::Result<Work> {
    let (mut runtime, arena) = (tasks::tokio_uring(Settings::Default)?, arena()?);
    let (file, registered) = Runtime::block_on(&mut runtime, async {
        let registered = uring_arena::tokio_uring::Registered::new(&arena);
        let file = Rc::new(tokio_uring::fs::File::open(path).await?);
        io::Result::Ok((file, registered.map_err(io::Error::other)?))
    })?;
    passes(runtime, async move |place| {
        let slot = arena.allocate().map_err(io::Error::other)?;
        let (result, slot) = registered.read_at(&file, slot, place).await;
        drop(slot.freeze());
        result
    })
}

fn own_tokio_uring(path: &Path) -> io::Result<Work> {
    let mut runtime = tasks::tokio_uring(Settings::Default)?;
    let file = Runtime::block_on(&mut runtime, tokio_uring::fs::File::open(path))?;
    let mut kept = Some(Vec::with_capacity(READ_BYTES));
    passes(runtime, async move |place| {
        let buffer: Vec<u8> = kept.take().ok_or(io::ErrorKind::Other)?;
        let (result, buffer) = file.read_at(buffer, place).await;
        kept = Some(buffer);
        result
    })
}

fn ours_compio(path: &Path) -> io::Result<Work> {
    let (mut runtime, arena) = (tasks::compio(Settings::Default, None)?, arena()?);
    let (file, registered) = Runtime::block_on(&mut runtime, async {
        let file = compio::fs::File::open(path).await?;
        let registered = uring_arena::compio::Registered::new(&arena);
        io::Result::Ok((file, registered.map_err(io::Error::other)?))
    })?;
    passes(runtime, async move |place| {
        let slot = arena.allocate().map_err(io::Error::other)?;
        let (result, slot): (io::Result<usize>, _) =
            registered.read_at(&file, slot, place).await.into();
        drop(slot.freeze());
        result
    })
}

fn own_compio(path: &Path) -> io::Result<Work> {
    let mut runtime = tasks::compio(Settings::Default, None)?;
    let file = Runtime::block_on(&mut runtime, compio::fs::File::open(path))?;
    let mut kept = Some(Vec::with_capacity(READ_BYTES));
    passes(runtime, async move |place| {
        let mut buffer: Vec<u8> = kept.take().ok_or(io::ErrorKind::Other)?;
        buffer.clear();
        let (result, buffer): (io::Result<usize>, _) = file.read_at(buffer, place).await.into();
        kept = Some(buffer);
        result
    })
}
