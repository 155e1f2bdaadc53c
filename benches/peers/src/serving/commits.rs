//! A log with group commit, beside fio with the same pattern of writes and syncs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::disk::sample_of_fio;
use crate::measure::is_installed;
use crate::report::OURS;
use crate::run::{Amount, Answer, Method, Question, Sample, metric, to_io_error};

use super::log::{BLOCK, HEADER};
use super::store::Store;

/// The records of a commit.
const DEPTH: usize = 32;

pub const COMMITS: Question = Question {
    label: "commits-32: Log, 4 KiB records, a commit behind 32",
    metrics: &[
        metric("rate", "durable records per second", "1/s", 1.0),
        metric("cpu", "CPU per record", "µs", 1e-3),
    ],
    method: |effort| {
        let records = Amount::Times(effort.choose(2_000, 50_000));
        let rounds = Method::rounds(1, effort.choose(3, 9), records);
        Method { observed: true, ..rounds }
    },
};

pub static LOGS: [Answer<Question>; 2] = [
    Answer::new(
        OURS,
        "`examples/log_store`: `Driver`; a batch is one write and one `sync_data`",
        |_, scratch| {
            let path = place(scratch);
            Ok(Box::new(move |times| by_driver(&path, times)))
        },
    ),
    Answer {
        suits: |_, _| is_installed("fio"),
        ..Answer::new(
            "fio",
            "io_uring engine, --rw=write --bs=4k --iodepth=32 --fdatasync=32 --direct=1",
            |_, scratch| {
                let path = place(scratch);
                Ok(Box::new(move |times| by_fio(&path, times)))
            },
        )
    },
];

fn place(scratch: &Path) -> PathBuf {
    scratch.join(format!("log-{}", std::process::id()))
}

fn by_driver(path: &Path, times: u64) -> io::Result<Sample> {
    let mut open = File::options();
    open.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let mut store = Store::new(open.open(path)?, DEPTH).map_err(to_io_error)?;
    store.reserve((times + 1) * BLOCK).map_err(to_io_error)?;
    let payload = vec![0x5A; (BLOCK - HEADER) as usize];
    let begin = Instant::now();
    for _ in 0..times {
        store.append(&payload, DEPTH).map_err(to_io_error)?;
    }
    while store.durable < times {
        store.wait().map_err(to_io_error)?;
    }
    let rate = times as f64 / begin.elapsed().as_secs_f64();
    drop(store);
    fs::remove_file(path)?;
    Ok(Sample::default().with("rate", rate))
}

/// Has fio write as many records to a new file whose room it reserves.
fn by_fio(path: &Path, times: u64) -> io::Result<Sample> {
    let mut command = Command::new("fio");
    command.args(["--name=peer", "--ioengine=io_uring", "--direct=1", "--rw=write", "--bs=4k"]);
    command.args(["--fdatasync=32", "--iodepth=32", "--fallocate=native", "--thread"]);
    command.args(["--gtod_reduce=1", "--fixedbufs", "--registerfiles", "--output-format=json"]);
    command.arg(format!("--size={}", times.max(1) * BLOCK));
    command.arg(format!("--filename={}", path.display()));
    let sample = sample_of_fio(command, "\"write\" : {");
    fs::remove_file(path)?;
    sample
}
