//! Reads of a file in the page cache, one after the other.

use std::fs;
use std::io;
use std::path::Path;

use crate::harness::{
    Allocator, Child, Effort, Progress, Sample, Stopwatch, registered_buffers, serve,
    take_turns_anew,
};
use crate::report::{Comparison, Part, Row};

use super::readers::{READ_BYTES, System};

/// The word of this role.
pub const KIND: &str = "reads";

/// Reads through the whole file once.
const READS: usize = 256;

pub fn compare(
    target: &Path,
    effort: Effort,
    progress: &Progress,
    part: &mut Part,
) -> io::Result<()> {
    let path = target.join(format!("peers-cached-{}", std::process::id()));
    fs::write(&path, vec![7; READS * READ_BYTES])?;
    for pair in System::PAIRS {
        compare_pair(pair, &path, effort, progress, part);
    }
    fs::remove_file(&path)
}

/// Ours and the runtime's own.
fn compare_pair(
    pair: [System; 2],
    path: &Path,
    effort: Effort,
    progress: &Progress,
    part: &mut Part,
) {
    let start = || {
        let start = |system: System| match start(system, path) {
            Ok(child) => Some((system, child)),
            Err(error) => {
                progress.aloud(&format!("left out: {}: {error}", system.name()));
                None
            }
        };
        pair.into_iter().filter_map(start).collect()
    };
    // A pass is about a millisecond.
    let answers =
        take_turns_anew(effort.choose(1, 4), 16, start, |child: &mut Child| child.run(16));
    let rows = answers
        .iter()
        .map(|(system, own)| Row::new(system.name(), &own.note(system.note()), own.values("read")));
    let (key, title) = (pair[0].table(), pair[0].title());
    part.push(Comparison::beside(pair[0].name(), key, title, "ns", rows.collect()));
}

fn start(system: System, path: &Path) -> io::Result<Child> {
    let path = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Child::start(&["runtimes", KIND, &system.key(), path], Allocator::Glibc)
}

/// The child's side: `<system> <file>`.
pub fn work(system: &str, path: &str) -> io::Result<()> {
    let system = System::parse(system).ok_or_else(|| io::Error::other("no such system"))?;
    let mut reader = system.start(Path::new(path))?;
    reader.read(READS)?;
    let registered = registered_buffers();
    serve(|passes| {
        let begin = Stopwatch::process();
        for _ in 0..passes {
            reader.read(READS)?;
        }
        let each = begin.elapsed().as_nanos() as f64 / (passes * READS as u64) as f64;
        Ok(Sample::default().with("read", each).with("registered", registered))
    })
}
