//! What this kernel and this user can do with io_uring, and the settings that follow from it.
//!
//! ```text
//! cargo run --release --example doctor
//! cargo run --release --example doctor -- --slots 16384 --slot-bytes 64K
//! ```

#[path = "doctor/machine.rs"]
mod machine;
mod support;

use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use support::{mistake, size_within};
use uring_arena::{
    Backing, DirectAlignment, Driver, Feature, FixedArena, Memlock, Probe, RegistrationMode,
};

const HELP: &str = "\
Tells what this kernel and this user can do with io_uring, and what to build an arena with.

Usage: doctor [OPTIONS]
  --slots N         slots of the arena in question (512)
  --slot-bytes SIZE bytes of a slot (64K)
Sizes take K, M, G: powers of 1024.";

fn main() -> ExitCode {
    support::run(|| match Question::parse()? {
        Some(question) => examine(&question),
        None => Ok(()),
    })
}

/// The arena that is asked about.
struct Question {
    slots: NonZeroUsize,
    slot_bytes: NonZeroUsize,
}

impl Question {
    fn parse() -> Result<Option<Question>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let (mut slots, mut slot_bytes) = (512, 64 << 10);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("slots") => {
                    slots = size_within("--slots", parser.value()?, 1 << 31, "use several arenas")?;
                }
                Long("slot-bytes") => {
                    slot_bytes =
                        size_within("--slot-bytes", parser.value()?, 1 << 40, "use more slots")?;
                }
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                other => {
                    return Err(mistake(format!(
                        "{}; --help lists the options",
                        other.unexpected()
                    )));
                }
            }
        }
        let nonzero = |value: u64| {
            let value = usize::try_from(value).ok().and_then(NonZeroUsize::new);
            value.ok_or_else(|| {
                mistake(format!("{slots} slots of {slot_bytes} bytes: too many for this machine"))
            })
        };
        Ok(Some(Question { slots: nonzero(slots)?, slot_bytes: nonzero(slot_bytes)? }))
    }

    fn bytes(&self) -> u64 {
        (self.slots.get() as u64).saturating_mul(self.slot_bytes.get() as u64)
    }
}

fn row(what: &str, answer: impl std::fmt::Display) {
    println!("{what:<32} {answer}");
}

fn section(name: &str) {
    println!("\n{name}");
}

fn examine(question: &Question) -> Result<(), Box<dyn Error>> {
    row("kernel", machine::kernel());
    let probe = match Probe::new() {
        Ok(probe) => {
            row("io_uring", "yes");
            Some(probe)
        }
        Err(error) => {
            row("io_uring", format!("NO: {error}"));
            None
        }
    };
    if let Some(probe) = probe {
        tell_features(probe);
    }
    section("memory");
    let memlock = tell_memlock(question);
    row("transparent huge pages", machine::transparent_huge_pages());
    row("huge pages of 2 MiB", machine::huge_pages(2048));
    row("huge pages of 1 GiB", machine::huge_pages(1 << 20));
    tell_direct_io();
    let mode = match probe {
        Some(_) => try_it(question)?,
        None => RegistrationMode::Unregistered,
    };
    recommend(question, probe, mode, &memlock);
    Ok(())
}

fn tell_features(probe: Probe) {
    section("kernel features");
    for feature in Feature::ALL {
        let answer = if probe.has(feature) {
            "yes".into()
        } else {
            format!("NO: came with Linux {}", feature.since())
        };
        row(feature.name(), answer);
    }
}

fn tell_memlock(question: &Question) -> Memlock {
    let memlock = Memlock::for_bytes(question.bytes());
    let limit =
        |bytes: Option<u64>| bytes.map_or("no limit".into(), |bytes| format!("{bytes} bytes"));
    row("memlock needed by the arena", format!("{} bytes", memlock.needed));
    row("memlock soft limit", limit(memlock.soft));
    row("memlock hard limit", limit(memlock.hard));
    row("memlock lifted (CAP_IPC_LOCK)", if memlock.privileged { "yes" } else { "no" });
    if !memlock.suffices() {
        row("memlock remedy", memlock);
    }
    memlock
}

/// O_DIRECT on the file system of the current directory.
fn tell_direct_io() {
    let answer = match machine::file_here() {
        Ok(file) => match DirectAlignment::of(&file) {
            Ok(Some(alignment)) => {
                format!(
                    "yes: memory on {} bytes, offset and length on {} bytes",
                    alignment.memory, alignment.offset
                )
            }
            Ok(None) => "NO: this file system refuses it".into(),
            Err(error) => format!("cannot tell: {error}"),
        },
        Err(error) => format!("cannot tell: no file can be made here: {error}"),
    };
    row("O_DIRECT here", answer);
}

/// Builds the arena and registers it, to see how far that goes.
fn try_it(question: &Question) -> Result<RegistrationMode, Box<dyn Error>> {
    section(&format!(
        "an arena of {} slots of {} bytes, registered",
        question.slots, question.slot_bytes
    ));
    if let Err(error) = support::check_memory("the arena", question.bytes()) {
        row("not tried", error);
        return Ok(RegistrationMode::Unregistered);
    }
    let arena = FixedArena::with_slot_capacity(question.slots, question.slot_bytes)
        .alignment(4096)
        .build()?;
    let mut driver = Driver::builder().build()?;
    let id = driver.register(&arena)?;
    let registered = driver.arena(id)?;
    for (mode, error) in registered.refused() {
        row(&format!("not {mode:?}"), error);
    }
    row("mode", format!("{:?}", registered.mode()));
    if let Some((_, entries)) = registered.entries() {
        row("table entries", entries);
    }
    Ok(registered.mode())
}

fn recommend(question: &Question, probe: Option<Probe>, mode: RegistrationMode, memlock: &Memlock) {
    section("recommended");
    let huge = question.bytes() >= 2 << 20 && machine::can_ask_for_huge_pages();
    let backing = if huge { Backing::TransparentHuge } else { Backing::Anonymous };
    println!("FixedArena::with_slot_capacity({}, {})", question.slots, question.slot_bytes);
    println!("    .alignment(4096)");
    println!("    .backing(Backing::{backing:?})");
    println!("    .build()?;");
    let Some(probe) = probe else {
        println!("// and no ring: io_uring is not to be had, see above");
        return;
    };
    println!("let mut driver = Driver::builder().build()?;");
    match mode {
        RegistrationMode::Unregistered if !memlock.suffices() => {
            println!("// registering gains nothing until the memlock limit is raised, see above");
        }
        _ => println!("driver.register(&arena)?; // {mode:?}"),
    }
    if !probe.has(Feature::BufferRing) || !probe.has(Feature::RecvMultishot) {
        println!("// no multishot receive: it needs Linux 6.0");
    } else if question.slots.get() > 1 << 16 {
        println!("// too many slots to receive into: a buffer id numbers 65536");
    } else {
        let entries = (question.slots.get() / 2).clamp(1, 1 << 15);
        let entries = 1usize << entries.ilog2();
        println!("driver.register_buffer_ring(&arena, BufferRing::options().entries({entries}))?;");
    }
}
