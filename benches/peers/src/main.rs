//! The command line of the comparison, and the worker's side of it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use uring_arena_peers::report::{Part, Table, print, promises};
use uring_arena_peers::run::{Comparison, Effort, Profile, Session, serve};
use uring_arena_peers::{parts, pin_to_core, wear_in_heap};

/// The part that is measured on demand only: it is of no use on few cores.
const SCALING: &str = "scaling";

const USAGE: &str = "\
usage: uring-arena-peers [--quick] [--release-only] [--out FOLDER] [--only TEXT] [PART|list|page]...
  PART            core buddy waiting receive bulk runtimes send disk programs resp dns broker log
                  scaling; all but the last
  list            names the pairs of contender and case
  page            writes the page again from what is on record
  servers [NAME=LIST]...
                  whole servers under redis-benchmark, alone: runs, seconds, threads, clients,
                  loads, contenders; the word `calls` counts system calls in a run of its own,
                  and `record` puts the results on record
  servers link    one connection over a link with a delay (`rtt=20`, `seconds=3`), as root
  --quick         all parts within two minutes: in the profile release, at one setting of each
                  kind, programs with 0.05 s of processor time a run
  --release-only  leaves out the micro cases in the other profiles, which cargo must build
  --only TEXT     measures the cases whose names have the text; the others stay on record
  --out FOLDER    where the page goes: docs, or target/peers for a quick run";

fn main() -> ExitCode {
    end_on_panic();
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["worker", scratch, part, case, contender] => work(scratch, part, case, contender),
        #[cfg(feature = "io")]
        ["far-ends", address, shape] => serve(uring_arena_peers::far_ends(address, shape)),
        #[cfg(feature = "io")]
        ["server", kind, threads] => uring_arena_peers::servers::run(kind, threads),
        #[cfg(feature = "io")]
        ["servers", "link", ref words @ ..] => uring_arena_peers::servers::link(words),
        #[cfg(feature = "io")]
        ["link-inside", ref words @ ..] => uring_arena_peers::servers::link_inside(words),
        #[cfg(feature = "io")]
        ["servers", ref words @ ..] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            uring_arena_peers::servers::measure(words, &root.join("docs/benchmarks"))
        }
        _ => compare(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process when any thread panics: the others would wait for it for ever.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Measures the parts asked for, and writes the page from all parts on record.
fn compare(words: &[&str]) -> io::Result<()> {
    let (mut effort, mut folder, mut asked) = (Effort { quick: false }, None, Vec::new());
    let mut only = None;
    let mut profiles = Profile::ALL.to_vec();
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--quick" => {
                effort.quick = true;
                profiles.truncate(1);
            }
            "--release-only" => profiles.truncate(1),
            "--out" => folder = words.next().map(PathBuf::from),
            "--only" => only = words.next().copied(),
            _ => asked.push(word),
        }
    }
    let all = parts(effort);
    let is_known =
        |word: &&str| ["list", "page"].contains(word) || all.iter().any(|part| part.name == *word);
    if !asked.iter().all(is_known) {
        return Err(io::Error::other(USAGE));
    }
    if asked.contains(&"list") {
        all.iter().for_each(list);
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = folder.unwrap_or_else(|| root.join(effort.choose("target/peers", "docs")));
    let is_asked = |part: &&Part| match asked[..] {
        [] => part.name != SCALING,
        _ => asked.contains(&part.name),
    };
    let benchmarks = folder.join("benchmarks");
    fs::create_dir_all(&benchmarks)?;
    for part in all.iter().filter(is_asked) {
        measure(part, effort, only, &mut profiles, &benchmarks)?;
    }
    #[cfg(feature = "io")]
    uring_arena_peers::report::write_page(&folder, all)?;
    Ok(())
}

/// Names every pair, once for each profile that it is measured in.
fn list(part: &Part) {
    for comparison in part.groups.iter().flatten() {
        let profiles = if comparison.method.micro { &Profile::ALL[..] } else { &Profile::ALL[..1] };
        for (pair, profile) in comparison
            .pairs
            .iter()
            .flat_map(|pair| profiles.iter().map(move |profile| (pair, profile)))
        {
            let (key, contender) = (&comparison.key, pair.contender);
            println!("{}\t{key}\t{contender}\t{}", part.name, profile.name());
        }
    }
}

/// Measures a part, prints it, and puts it on record in the folder.
fn measure(
    part: &Part,
    effort: Effort,
    only: Option<&str>,
    profiles: &mut Vec<Profile>,
    folder: &Path,
) -> io::Result<()> {
    let scratch = Scratch::create()?;
    let mut remarks = (part.prepare)(&scratch.0, effort)?;
    if part.groups.iter().flatten().any(|comparison| comparison.method.micro) {
        profiles.retain(|profile| match profile.build() {
            Ok(()) => true,
            Err(error) => {
                remarks.push(format!("Left out: {}: {error}.", profile.name()));
                false
            }
        });
    }
    let mut session =
        Session { part: part.name, effort, scratch: &scratch.0, profiles, remarks: Vec::new() };
    remarks.drain(..).for_each(|remark| session.remark(remark));
    let mut rows = Vec::new();
    let is_asked = |key: &str| only.is_none_or(|text| key.contains(text));
    for (index, group) in part.groups.iter().enumerate() {
        if !group.iter().any(|comparison| is_asked(&comparison.key)) {
            continue;
        }
        let title = group.first().map_or("", |comparison| &comparison.title);
        eprintln!("{} [{}/{}] {title}", part.name, index + 1, part.groups.len());
        rows.extend(session.measure(group));
    }
    let mut table = Table::of_rows(&rows, effort.quick, session.remarks);
    let mut kept = promises(part.name, &rows);
    print(part.name, &table, &rows, &kept);
    if only.is_some() {
        let keys: Vec<&str> =
            part.groups.iter().flatten().map(|comparison| &*comparison.key).collect();
        table.keep_others(folder, part.name, &keys);
        keep_measured(&mut kept, folder);
    }
    table.store(folder, part.name)?;
    Table { lines: kept, ..Table::default() }.store_promises(folder, part.name)
}

/// Replaces the promises that this run did not measure by those on record.
fn keep_measured(kept: &mut [Vec<String>], folder: &Path) {
    let before = Table::load(folder, "promises").unwrap_or_default().lines;
    for line in kept.iter_mut().filter(|line| line.last().is_some_and(|it| it == "not measured")) {
        if let Some(old) = before.iter().find(|old| old[..5] == line[..5]) {
            line.clone_from(old);
        }
    }
}

/// Does the work of one pair.
fn work(scratch: &str, part: &str, case: &str, contender: &str) -> io::Result<()> {
    let mut comparisons = parts(Effort { quick: false })
        .into_iter()
        .filter(|own| own.name == part)
        .flat_map(|own| own.groups.into_iter().flatten());
    let comparison = comparisons.find(|comparison| comparison.key == case);
    let found = comparison.and_then(|Comparison { method, pairs, .. }| {
        let pair = pairs.into_iter().find(|pair| pair.contender == contender)?;
        Some((pair, method))
    });
    let (pair, method) = found.ok_or_else(|| io::Error::other("there is no such pair"))?;
    // Programs have threads; with one only, glibc's allocator takes shortcuts.
    std::thread::spawn(std::thread::park);
    if method.micro {
        wear_in_heap();
    }
    if method.pinned {
        pin_to_core(0);
    }
    serve(pair.start(Path::new(scratch)))
}

const PREFIX: &str = "peers-run-";

/// The folder of a run's files: on a disk beside the build, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder. Removes the folders of earlier runs that were ended by force.
    fn create() -> io::Result<Self> {
        let program = env::current_exe()?;
        let build = program.parent().ok_or(io::ErrorKind::NotFound)?;
        for entry in fs::read_dir(build)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let process = name.strip_prefix(PREFIX).filter(|rest| rest.parse::<u32>().is_ok());
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                fs::remove_dir_all(path)?;
            }
        }
        let path = build.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
