//! The part `disk`: its cases and its plot.

use std::path::Path;

use crate::report::{OURS, Part, Plot};
use crate::run::{Effort, bind};

use super::cases::fio_version;
use super::load::{Load, write_file};
use super::registering::{ON_HUGE_PAGES, ON_ORDINARY_PAGES, registering};
use super::systems::SYSTEMS;

const INTRODUCTION: &str = "\
`O_DIRECT` reads of one file on the disk of the target directory, so many in flight at all times, \
from one pinned thread; each system has a process of its own. CPU per read is user and system time \
of the whole process, its helper threads and io_uring's workers included. Reads per second: more \
is better, so *ours ÷ this* above 1 is good; CPU per read: below 1 is good. All memory is touched \
beforehand and lies on huge pages, fio's and glommio's too (through glibc's `malloc.hugetlb`): on \
scattered small pages a read of 128 KiB takes a descriptor per page, and a device whose ring has \
256 of them works on seven such reads at a time, whoever asks.";

pub fn part(effort: Effort) -> Part {
    let load = |random, block_bytes, depth| Load { random, block_bytes, depth };
    let random = [1, 32, 128].map(|depth| load(true, 4096, depth));
    let sequential = [1, 32, 128].map(|depth| load(false, 131_072, depth));
    let loads = random.into_iter().chain(sequential);
    let loads = loads.filter(|load| load.depth == 32 || !effort.quick);
    let mut groups: Vec<_> = loads.map(|load| vec![bind(load, &SYSTEMS, effort)]).collect();
    for (label, answers) in [
        (
            "registering-huge: Registering 1 GiB in slots of 64 KiB, transparent huge pages",
            &ON_HUGE_PAGES,
        ),
        ("registering: Registering 1 GiB in slots of 64 KiB, ordinary pages", &ON_ORDINARY_PAGES),
    ] {
        groups.push(vec![bind(registering(label), answers, effort)]);
    }
    let prepare = |scratch: &Path, effort| {
        let mut remarks = write_file(scratch, effort)?;
        remarks.extend(fio_version().map(|version| format!("fio is {version}.")));
        Ok(remarks)
    };
    Part { prepare, plots: &[DEPTH], ..Part::new("disk", "Reading files", INTRODUCTION, groups) }
}

const DEPTH: Plot = Plot {
    file: "cpu-per-read-by-depth",
    title: "Random 4 KiB reads: CPU per read by depth",
    x_label: "reads in flight",
    y_label: "µs per read",
    key: ("random-", ""),
    metric: "cpu",
    lines: &[OURS, "fio", "tokio-uring read_fixed_at", "compio read_at", "glommio read_at_aligned"],
    is_logarithmic: true,
};
