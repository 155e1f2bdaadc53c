//! The same stream to each program; what it cost the receiving side.

use std::io;
use std::path::Path;
use std::time::Instant;

use crate::harness::{Allocator, Child, Effort, Progress, Sample, serve, take_turns};
use crate::report::{Bound, Comparison, Figure, OURS, Part, Row};

use super::stream;
use super::systems::System;

pub fn compare(
    target: &Path,
    effort: Effort,
    progress: &Progress,
    part: &mut Part,
) -> io::Result<()> {
    let path = target.join(format!("peers-ingest-{}", std::process::id()));
    let name = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let mut children = Vec::new();
    for system in System::ALL {
        match Child::start(&["programs", "ingest", &system.key(), name], Allocator::Glibc) {
            Ok(child) => children.push((system, child)),
            Err(error) => {
                progress.aloud(&format!("left out: ingest by {}: {error}", system.name()))
            }
        }
    }
    let mebibytes = effort.choose(128, 256);
    let answers = take_turns(&mut children, effort.choose(4, 9), |(_, child)| child.run(mebibytes));
    for (key, title, unit) in [
        ("ingest-cpu", "Ingest, socket to file: CPU per GB", "s"),
        ("ingest-wall", "Ingest, socket to file: time per GB by the wall clock", "s"),
    ] {
        let what = key.trim_start_matches("ingest-");
        let rows = children.iter().zip(&answers);
        let rows = rows.map(|((system, _), own)| {
            Row::new(system.name(), &own.note(system.note()), own.values(what))
        });
        part.push(Comparison::new(key, title, unit, rows.collect()));
    }
    let measured = part.ratio(("ingest-cpu", OURS), ("ingest-cpu", System::Tokio.name()));
    let case = "ingest, socket to `O_DIRECT` file: CPU per GB";
    let of = "× tokio with `tokio::fs`";
    part.figures.push(Figure::new("Kernel side", case, Bound::AtMost(0.6), of, measured));
    Ok(())
}

/// The child's side: `<system> <file>`; asked for so many MiB.
pub fn work(words: &[String]) -> io::Result<()> {
    let unknown = || io::Error::other("no such system");
    let [system, path] = words else {
        return Err(unknown());
    };
    let system = System::parse(system).ok_or_else(unknown)?;
    let mut ingest = system.start()?;
    let path = Path::new(path);
    // Everything seen once.
    one(&mut *ingest, path, 16 << 20)?;
    serve(|mebibytes| one(&mut *ingest, path, (mebibytes as usize) << 20))
}

/// Seconds per GB for one stream.
fn one(ingest: &mut dyn super::systems::Ingest, path: &Path, bytes: usize) -> io::Result<Sample> {
    let begin = Instant::now();
    let before = stream::processor_seconds(libc::RUSAGE_SELF);
    let (socket, sender) = stream::begin(bytes)?;
    ingest.ingest(socket, path, bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let sending = sender.join().map_err(|_| io::Error::other("the sender has panicked"))??;
    let spent = stream::processor_seconds(libc::RUSAGE_SELF) - before - sending;
    let wall = begin.elapsed().as_secs_f64();
    stream::verify(path, bytes)?;
    std::fs::remove_file(path)?;
    let gigabytes = bytes as f64 / 1e9;
    let registered = ingest.registered();
    let sample = Sample::default().with("cpu", spent / gigabytes).with("wall", wall / gigabytes);
    Ok(sample.with("registered", registered))
}
