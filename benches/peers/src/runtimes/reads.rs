//! Reads of a file in the page cache, one after the other.

use std::fs;
use std::io;
use std::path::Path;

use crate::harness::{Allocator, Answers, Child, Effort, Progress, Sample, Stopwatch, serve, take_turns};
use crate::report::{Comparison, Part, Row};

use super::readers::{READ_BYTES, System};

/// Reads through the whole file once.
const READS: usize = 256;

pub fn compare(target: &Path, effort: Effort, progress: &Progress, part: &mut Part) -> io::Result<()> {
    let path = target.join(format!("peers-cached-{}", std::process::id()));
    fs::write(&path, vec![7; READS * READ_BYTES])?;
    for pair in System::PAIRS {
        compare_pair(pair, &path, effort, progress, part);
    }
    fs::remove_file(&path)
}

/// Ours and the runtime's own.
fn compare_pair(pair: [System; 2], path: &Path, effort: Effort, progress: &Progress, part: &mut Part) {
    let mut answers: Vec<Answers> = Vec::new();
    for _ in 0..effort.choose(2, 4) {
        let started: io::Result<Vec<_>> = pair.iter().map(|system| start(*system, path)).collect();
        let mut children = match started {
            Ok(children) => children,
            Err(error) => return progress.aloud(&format!("left out: {}: {error}", pair[0].title())),
        };
        // A pass is about a millisecond.
        let later = take_turns(&mut children, effort.choose(8, 16), |child| child.run(16));
        if answers.is_empty() {
            answers = later;
        } else {
            answers.iter_mut().zip(later).for_each(|(own, later)| own.extend(later));
        }
    }
    let rows = pair
        .iter()
        .zip(&answers)
        .map(|(system, own)| Row::new(system.name(), &own.note(system.note()), own.values("read")));
    let (key, title) = (pair[0].table(), pair[0].title());
    part.push(Comparison::beside(pair[0].name(), key, title, "ns", rows.collect()));
}

fn start(system: System, path: &Path) -> io::Result<Child> {
    let path = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Child::start(&["runtimes", &system.key(), path], Allocator::Glibc)
}

/// The child's side: `<system> <file>`.
pub fn work(words: &[String]) -> io::Result<()> {
    let [system, path] = words else {
        return Err(io::Error::other("no such system"));
    };
    let system = System::parse(system).ok_or_else(|| io::Error::other("no such system"))?;
    let mut reader = system.start(Path::new(path))?;
    reader.read(READS)?;
    serve(|passes| {
        let begin = Stopwatch::process();
        for _ in 0..passes {
            reader.read(READS)?;
        }
        let each = begin.elapsed().as_nanos() as f64 / (passes * READS as u64) as f64;
        Ok(Sample::default().with("read", each))
    })
}
