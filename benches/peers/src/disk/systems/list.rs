//! The list of systems: what each is called, and how it is set up.

use std::io;

use crate::disk::cases::{FIO_NOTE, fio, reads};
use crate::disk::load::{Load, file};
use crate::measure::is_installed;
use crate::report::OURS;
use crate::run::Answer;
use crate::tasks::Settings::{Best, Default};

use super::{bare, ours, ours_driver, runtimes};

/// A runtime as it comes: not needed under `--quick`, as it has a better line.
const DEFAULTS: Answer<Load> = Answer {
    suits: |_, effort| !effort.quick,
    ..Answer::new("", "the same with the runtime as its `new` or `default` makes it", |_, _| {
        unreachable!("each system says how it starts")
    })
};

pub static SYSTEMS: [Answer<Load>; 14] = [
    Answer::new(
        OURS,
        "`RegisteredArena` and `InFlight` on an own ring; a new slot per read, frozen and dropped",
        |load, scratch| reads(ours::start(&file(scratch), *load)?, *load),
    ),
    Answer::new(
        "uring-arena, Driver",
        "`Driver`, safe code only; a new slot per read, frozen and dropped",
        |load, scratch| reads(ours_driver::start(&file(scratch), *load)?, *load),
    ),
    Answer::new(
        "uring-arena on tokio-uring",
        "`Registered` on its runtime; a new slot per read, frozen and dropped",
        |load, scratch| reads(runtimes::ours_tokio_uring(&file(scratch), *load)?, *load),
    ),
    Answer::new(
        "bare io_uring",
        "READ_FIXED, registered file, DEFER_TASKRUN; hands nothing out",
        |load, scratch| reads(bare::start(&file(scratch), *load)?, *load),
    ),
    Answer::new(
        "tokio-uring read_fixed_at",
        "a `FixedBuf` per read in flight, used again in place",
        |load, scratch| reads(runtimes::tokio_uring(&file(scratch), *load, Best(256))?, *load),
    ),
    Answer {
        name: "tokio-uring read_fixed_at, defaults",
        start: |load, scratch| reads(runtimes::tokio_uring(&file(scratch), *load, Default)?, *load),
        ..DEFAULTS
    },
    Answer::new(
        "glommio read_at_aligned",
        "its own registered region; the result stays on the thread",
        |load, scratch| reads(runtimes::glommio(&file(scratch), *load, Best(256))?, *load),
    ),
    Answer {
        name: "glommio read_at_aligned, defaults",
        start: |load, scratch| reads(runtimes::glommio(&file(scratch), *load, Default)?, *load),
        ..DEFAULTS
    },
    Answer::new(
        "compio read_at",
        "DEFER_TASKRUN; an aligned buffer per read in flight, used again in place",
        |load, scratch| reads(runtimes::compio(&file(scratch), *load, Best(256))?, *load),
    ),
    Answer {
        name: "compio read_at, defaults",
        start: |load, scratch| reads(runtimes::compio(&file(scratch), *load, Default)?, *load),
        ..DEFAULTS
    },
    Answer::new(
        "monoio read_at",
        "an aligned buffer per read in flight, used again in place",
        |load, scratch| reads(runtimes::monoio(&file(scratch), *load, Best(256))?, *load),
    ),
    Answer {
        name: "monoio read_at, defaults",
        start: |load, scratch| reads(runtimes::monoio(&file(scratch), *load, Default)?, *load),
        ..DEFAULTS
    },
    Answer::new(
        "tokio spawn_blocking",
        "`pread` on the pool of blocking threads, all on the same core",
        |load, scratch| reads(runtimes::tokio(&file(scratch), *load)?, *load),
    ),
    Answer::new("fio", FIO_NOTE, |load, scratch| {
        if !is_installed("fio") {
            return Err(io::Error::other("it is not installed (apt-get install fio)"));
        }
        let (path, load) = (file(scratch), *load);
        Ok(Box::new(move |_| fio(&path, load)))
    }),
];
