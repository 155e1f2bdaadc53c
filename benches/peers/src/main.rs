//! How does uring-arena compare with every peer, on the same work, in one run?
//!
//! `cargo run --release -p uring-arena-peers [-- [--quick] [--out FOLDER] [core|buddy|waiting|receive|runtimes|disk|programs|scaling]…]`

mod buddy;
mod disk;
mod fixed;
mod harness;
mod programs;
mod receive;
mod report;
mod runtimes;
mod scaling;
mod waiting;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use harness::Effort;
use report::Part;

/// In the order of the page.
const PARTS: [&str; 8] =
    ["core", "buddy", "waiting", "receive", "runtimes", "disk", "programs", SCALING];

/// Measures nothing: draws and writes the page again from what is on record.
const PAGE: &str = "page";

/// Only on demand: of no use on few cores.
const SCALING: &str = "scaling";

const USAGE: &str = "usage: uring-arena-peers [--quick] [--out FOLDER] [core|buddy|waiting|receive|runtimes|disk|programs|scaling|page]…";

fn main() -> ExitCode {
    end_on_panic();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((first, role)) if first == "worker" => work(role),
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

/// A thread that panics would leave the others waiting for it: better no number than no end.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// The parent: measures the parts asked for, and writes the page from all parts on record.
fn compare(words: &[String]) -> io::Result<()> {
    let mut effort = Effort::full();
    let mut folder = None;
    let (mut parts, mut only_page) = (Vec::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => effort = Effort::quick(),
            "--out" => folder = words.next().map(PathBuf::from),
            PAGE => only_page = true,
            name if PARTS.contains(&name) => parts.push(name),
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    if parts.is_empty() && !only_page {
        parts.extend(PARTS.iter().filter(|&&part| part != SCALING));
    }
    let folder = folder.unwrap_or_else(|| usual_folder(effort));
    for name in PARTS.iter().filter(|name| parts.contains(name)) {
        let mut part = measure(name, effort)?;
        draw(&mut part);
        report::print(&part);
        report::store(&folder, &part)?;
    }
    if only_page {
        for mut part in report::load(&folder, &PARTS) {
            draw(&mut part);
            report::store(&folder, &part)?;
        }
    }
    report::write_page(&folder, &report::load(&folder, &PARTS))
}

/// Draws what a part has to show, from its tables.
fn draw(part: &mut Part) {
    let draw = match part.name.as_str() {
        "core" => fixed::draw,
        "receive" => receive::draw,
        "disk" => disk::draw,
        _ => return,
    };
    part.plots.clear();
    draw(part);
}

/// A quick run does not replace the page that is kept.
fn usual_folder(effort: Effort) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(effort.choose("target/peers", "docs"))
}

/// Where this program was built: on a disk, and cleaned with the build.
fn target_folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    program.parent().map(Path::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn measure(name: &str, effort: Effort) -> io::Result<Part> {
    match name {
        "core" => Ok(fixed::run(effort)),
        "receive" => Ok(receive::run(effort)),
        "runtimes" => runtimes::run(effort, &target_folder()?),
        "disk" => disk::run(effort, &target_folder()?),
        "programs" => programs::run(effort, &target_folder()?),
        "buddy" => Ok(buddy::run(effort)),
        "waiting" => Ok(waiting::run(effort)),
        SCALING => Ok(scaling::run(effort)),
        _ => Err(io::Error::other(USAGE)),
    }
}

/// A child: does what the parent orders.
fn work(role: &[String]) -> io::Result<()> {
    match role.split_first() {
        Some((part, words)) if part == "core" => fixed::work(words),
        Some((part, words)) if part == "receive" => receive::work(words),
        Some((part, words)) if part == "runtimes" => runtimes::work(words),
        Some((part, words)) if part == "disk" => disk::work(words),
        Some((part, words)) if part == "programs" => programs::work(words),
        Some((part, words)) if part == "waiting" => waiting::work(words),
        _ => Err(io::Error::other("this is for the program's own children")),
    }
}
