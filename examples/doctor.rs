//! A report of what this kernel and this user can do with io_uring, and of the settings to use.
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
use std::path::Path;
use std::process::ExitCode;

use indicatif::BinaryBytes;
use support::{CommandLine, UnnamedFile, count, mode_name, nonzero, say};
use uring_arena::{DirectAlignment, Driver, Feature, FixedArena, Memlock, Probe, RegistrationMode};

const LINE: CommandLine = CommandLine {
    help: "\
Reports what this kernel and this user can do with io_uring, and which settings to use.

Usage: doctor [OPTIONS]
  --slots N         slots of the arena in question (512)
  --slot-bytes SIZE bytes of a slot (64K)
Sizes take K, M, G: powers of 1024.",
    options: &["--slots", "--slot-bytes"],
    flags: &[],
    operands: &[],
};

fn main() -> ExitCode {
    support::run(Question::parse, examine)
}

/// The size of the arena in question.
struct Question {
    slots: NonZeroUsize,
    slot_bytes: NonZeroUsize,
}

impl Question {
    /// Parses the command line. Returns `None` if only help was asked for.
    fn parse() -> Result<Option<Question>, Box<dyn Error>> {
        let mut question = Question { slots: nonzero(512)?, slot_bytes: nonzero(64 << 10)? };
        let given = LINE.parse(|name, value| {
            match name {
                "--slots" => question.slots = count(name, value, 1 << 31, "use several arenas")?,
                _ => question.slot_bytes = count(name, value, 1 << 40, "use more slots")?,
            }
            Ok(())
        })?;
        Ok(given.map(|_| question))
    }

    fn bytes(&self) -> u64 {
        (self.slots.get() as u64).saturating_mul(self.slot_bytes.get() as u64)
    }
}

fn row(what: &str, answer: impl std::fmt::Display) {
    say!("{what:<32} {answer}");
}

fn section(name: &str) {
    say!("\n{name}");
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
        report_features(probe);
    }
    section("memory");
    let memlock = report_memlock(question);
    row("transparent huge pages", machine::transparent_huge_pages());
    row("huge pages of 2 MiB", machine::huge_pages(2048));
    row("huge pages of 1 GiB", machine::huge_pages(1 << 20));
    report_direct_io();
    let mode = match probe {
        Some(_) => register_arena(question)?,
        None => RegistrationMode::Unregistered,
    };
    recommend(question, probe, mode, &memlock);
    Ok(())
}

fn report_features(probe: Probe) {
    section("kernel features");
    for feature in Feature::ALL {
        let answer = if probe.has(feature) {
            "yes".into()
        } else {
            format!("NO: needs Linux {}", feature.since())
        };
        row(feature.name(), answer);
    }
}

fn report_memlock(question: &Question) -> Memlock {
    let memlock = Memlock::for_bytes(question.bytes());
    let limit = |bytes: Option<u64>| {
        bytes.map_or("no limit".into(), |bytes| BinaryBytes(bytes).to_string())
    };
    row("memlock needed by the arena", BinaryBytes(memlock.needed));
    row("memlock soft limit", limit(memlock.soft));
    row("memlock hard limit", limit(memlock.hard));
    row("memlock lifted (CAP_IPC_LOCK)", if memlock.privileged { "yes" } else { "no" });
    if !memlock.suffices() {
        row("memlock remedy", memlock);
    }
    memlock
}

/// Reports `O_DIRECT` on the file system of the current directory.
fn report_direct_io() {
    let answer = match UnnamedFile::new_in(Path::new(".")) {
        Ok(file) => match DirectAlignment::of(file.file()) {
            Ok(Some(alignment)) => format!(
                "yes: memory aligned to {} bytes, offset and length to {} bytes",
                alignment.memory, alignment.offset
            ),
            Ok(None) => "NO: this file system refuses it".into(),
            Err(error) => format!("unknown: {error}"),
        },
        Err(error) => format!("unknown: no file can be made here: {error}"),
    };
    row("O_DIRECT here", answer);
}

/// Builds the arena and registers it. Returns the mode that the registration reached.
fn register_arena(question: &Question) -> Result<RegistrationMode, Box<dyn Error>> {
    section(&format!(
        "an arena of {} slots of {}, registered",
        question.slots,
        BinaryBytes(question.slot_bytes.get() as u64)
    ));
    if let Err(error) = support::check_memory("the arena", question.bytes()) {
        row("not tried", error);
        return Ok(RegistrationMode::Unregistered);
    }
    let arena = FixedArena::with_slot_capacity(question.slots, question.slot_bytes)
        .alignment(4096)
        .build()?;
    let mut driver = match Driver::builder().build() {
        Ok(driver) => driver,
        Err(error) => {
            row("not tried", error);
            return Ok(RegistrationMode::Unregistered);
        }
    };
    let id = driver.register(&arena)?;
    let registered = driver.arena(id)?;
    for &(mode, ref error) in registered.refused() {
        row(&format!("not {}", mode_name(mode)), error);
    }
    row("mode", mode_name(registered.mode()));
    if let Some((_, entries)) = registered.entries() {
        row("table entries", entries);
    }
    Ok(registered.mode())
}

/// Prints the code that builds and registers the arena best on this machine.
fn recommend(question: &Question, probe: Option<Probe>, mode: RegistrationMode, memlock: &Memlock) {
    section("recommended");
    let huge = question.bytes() >= 2 << 20 && machine::allows_huge_pages();
    let backing = if huge { "TransparentHuge" } else { "Anonymous" };
    say!("let slots = NonZeroUsize::new({}).unwrap();", question.slots);
    say!("let slot_bytes = NonZeroUsize::new({}).unwrap();", question.slot_bytes);
    say!("let arena = FixedArena::with_slot_capacity(slots, slot_bytes)");
    say!("    .alignment(4096)");
    say!("    .backing(Backing::{backing})");
    say!("    .build()?;");
    let Some(probe) = probe else {
        say!("// no driver: io_uring is not available, see above");
        return;
    };
    say!("let mut driver = Driver::builder().build()?;");
    match mode {
        RegistrationMode::Unregistered if !memlock.suffices() => {
            say!("// registering gains nothing until the memlock limit is raised, see above");
        }
        _ => say!("driver.register(&arena)?; // {}", mode_name(mode)),
    }
    if !probe.has(Feature::BufferRing) || !probe.has(Feature::RecvMultishot) {
        say!("// no multishot receive: it needs Linux 6.0");
    } else if question.slots.get() > 1 << 16 {
        say!("// no buffer ring: an arena for one has at most 65536 slots");
    } else {
        say!("// the depth of the ring follows the messages; streams need no other settings");
        say!("driver.register_buffer_ring(&arena, BufferRing::options())?;");
    }
}
