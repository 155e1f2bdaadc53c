//! The examination: asks the kernel, builds the arena in question, and says what to do.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use uring_arena::{
    Backing, BufferRing, DirectAlignment, Driver, Feature, FixedArena, Memlock, Probe,
    RegistrationMode,
};

use super::arguments::Question;
use super::machine;
use super::modes::mode_name;
use super::report::{Report, Verdict};

/// The locked memory of the queues of a driver, and of a buffer ring of 1,024 slots.
const QUEUES: u64 = 64 << 10;

/// The alignment of an arena if the file system says nothing: what every disk takes.
const SAFE_ALIGNMENT: u32 = 4096;

/// The features without which a driver does much less.
const NEEDED: [Feature; 3] = [Feature::FixedBuffers, Feature::BufferRing, Feature::RecvMultishot];

/// Looks at this machine.
pub fn examine(question: &Question) -> Report {
    let mut report = Report::new();
    report.section("machine");
    report.row("kernel", machine::kernel());
    let probe = match Probe::new() {
        Ok(probe) => {
            report.row("io_uring", "yes");
            Some(probe)
        }
        Err(error) => {
            report.row("io_uring", "NO");
            report.note(Verdict::Unavailable, format!("io_uring: {error}"));
            None
        }
    };
    report_readiness(&mut report, probe.is_some());
    if let Some(probe) = probe {
        report_features(&mut report, probe);
    }
    report.section("memory");
    report_memlock(&mut report, question, probe.is_some());
    report.row("transparent huge pages", machine::transparent_huge_pages());
    report.row("huge pages of 2 MiB", machine::huge_pages(2048));
    report.row("huge pages of 1 GiB", machine::huge_pages(1 << 20));
    let alignment = report_direct_io(&mut report, question);
    let settings = Settings { alignment, backing: backing(question) };
    let mode = try_arena(&mut report, question, &settings, probe.is_some());
    report.recommended = recommended(question, &settings, probe, mode);
    if report.verdict == Verdict::Ready {
        report.reasons.insert(0, "io_uring does all that the crate asks of it here".into());
    }
    report
}

/// The settings of the arena that this machine is best served by.
struct Settings {
    alignment: u32,
    backing: Backing,
}

fn backing(question: &Question) -> Backing {
    match question.bytes() >= 2 << 20 && machine::allows_huge_pages() {
        true => Backing::TransparentHuge,
        false => Backing::Anonymous,
    }
}

/// Reports what the engine of tokio's pool that needs no io_uring does here.
fn report_readiness(report: &mut Report, has_uring: bool) {
    let files = match has_uring {
        true => "files go by io_uring, which is here",
        false => "a file costs a thread that blocks",
    };
    report.row(
        "Engine::Readiness of tokio::Pool",
        format!("works: epoll watches the connections, and {files}"),
    );
}

fn report_features(report: &mut Report, probe: Probe) {
    report.section("kernel features");
    let mut older = Vec::new();
    for feature in Feature::ALL {
        if probe.has(feature) {
            report.row(feature.name(), "yes");
            continue;
        }
        report.row(feature.name(), format!("NO: needs Linux {}", feature.since()));
        match NEEDED.contains(&feature) {
            true => report.note(
                Verdict::Limited,
                format!("no {}: they need Linux {}", feature.name(), feature.since()),
            ),
            false => older.push(feature.name()),
        }
    }
    if !older.is_empty() {
        let reason = format!("older forms are used in place of: {}", older.join(", "));
        report.note(Verdict::Ready, reason);
    }
}

fn report_memlock(report: &mut Report, question: &Question, has_uring: bool) {
    let memlock = Memlock::for_bytes(question.bytes().saturating_add(QUEUES));
    let limit = |bytes: Option<u64>| bytes.map_or("no limit".into(), size);
    report.row(
        "memlock needed",
        format!("{}: the arena, and {} for the rings", size(memlock.needed), size(QUEUES)),
    );
    report.row("memlock soft limit", limit(memlock.soft));
    report.row("memlock hard limit", limit(memlock.hard));
    report.row("memlock lifted (CAP_IPC_LOCK)", if memlock.privileged { "yes" } else { "no" });
    if has_uring && !memlock.suffices() {
        report.note(Verdict::Limited, format!("locked memory: {memlock}"));
    }
}

/// Reports `O_DIRECT` on the file system of the current directory. Returns the alignment for it.
fn report_direct_io(report: &mut Report, question: &Question) -> u32 {
    let (answer, alignment) = match unnamed_file(Path::new(".")) {
        Ok(file) => match DirectAlignment::of(&file) {
            Ok(Some(found)) => {
                let alignment = found.memory.max(found.offset);
                let fits = match question.slot_bytes % found.offset as usize {
                    0 => "whole slots fit",
                    _ => "whole slots do NOT fit: choose a multiple of that",
                };
                let (memory, offset) = (found.memory, found.offset);
                let words = format!(
                    "yes: memory aligned to {memory} bytes, offset and length to {offset}; {fits}"
                );
                (words, alignment)
            }
            Ok(None) => ("NO: this file system refuses it".into(), SAFE_ALIGNMENT),
            Err(error) => (format!("unknown: {error}"), SAFE_ALIGNMENT),
        },
        Err(error) => (format!("unknown: no file can be made here: {error}"), SAFE_ALIGNMENT),
    };
    report.row("O_DIRECT here", answer);
    alignment
}

/// Makes a file that goes with its descriptor.
fn unnamed_file(folder: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(folder) {
        return Ok(file);
    }
    let path = folder.join(format!(".uring-arena-doctor-{}.tmp", std::process::id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Builds the arena with the recommended settings, and registers it. Returns the mode that the
/// registration reached.
fn try_arena(
    report: &mut Report,
    question: &Question,
    settings: &Settings,
    has_uring: bool,
) -> RegistrationMode {
    let name =
        format!("an arena of {} slots of {}", question.slots, size(question.slot_bytes as u64));
    report.section(name);
    if machine::available_memory().is_some_and(|available| question.bytes() > available) {
        let reason = "more than the memory that is available: ask for less";
        report.row("not tried", reason);
        report.note(Verdict::Limited, format!("the arena: {reason}"));
        return RegistrationMode::Unregistered;
    }
    let built = FixedArena::with_sizes(question.slots, question.slot_bytes)
        .alignment(settings.alignment as usize)
        .backing(settings.backing)
        .build();
    let arena = match built {
        Ok(arena) => arena,
        Err(error) => {
            report.row("not built", &error);
            report.note(Verdict::Limited, format!("the arena: {error}"));
            return RegistrationMode::Unregistered;
        }
    };
    report.row("built", format!("alignment {}, {:?}", settings.alignment, settings.backing));
    if !has_uring {
        report.row("not registered", "there is no io_uring, see the verdict");
        return RegistrationMode::Unregistered;
    }
    match register(report, &arena) {
        Ok(mode) => mode,
        Err(error) => {
            report.row("not registered", &error);
            report.note(Verdict::Limited, format!("a driver: {error}"));
            RegistrationMode::Unregistered
        }
    }
}

fn register(
    report: &mut Report,
    arena: &FixedArena,
) -> Result<RegistrationMode, Box<dyn std::error::Error>> {
    let mut driver = Driver::builder().build()?;
    let id = driver.register(arena)?;
    let registered = driver.arena(id)?;
    for &(mode, ref error) in registered.refused() {
        report.row(format!("not {}", mode_name(mode)), error);
    }
    let mode = registered.mode();
    report.row("registered", mode_name(mode));
    if let Some((_, entries)) = registered.entries() {
        report.row("table entries", entries);
    }
    if mode == RegistrationMode::Unregistered {
        let why = registered.refused().last().map(|(_, error)| error.to_string());
        let why = why.unwrap_or_else(|| "no mode fits".into());
        report.note(Verdict::Limited, format!("the arena is not registered: {why}"));
    }
    if arena.slot_count() <= 1 << 16 {
        let ring = driver.register_buffer_ring(arena, BufferRing::options())?;
        report.row("slots that lie ready", driver.ring_metrics(ring)?.published);
    }
    Ok(mode)
}

/// Returns the code that builds and registers the arena best on this machine: a whole program.
fn recommended(
    question: &Question,
    settings: &Settings,
    probe: Option<Probe>,
    mode: RegistrationMode,
) -> String {
    let Settings { alignment, backing } = settings;
    let Question { slots, slot_bytes, .. } = question;
    let receives = probe.is_some_and(|probe| NEEDED.iter().all(|&needed| probe.has(needed)));
    let receives = receives && *slots <= 1 << 16;
    let names = match (probe.is_some(), receives) {
        (true, true) => "Backing, BufferRing, Driver, FixedArena",
        (true, false) => "Backing, Driver, FixedArena",
        (false, _) => "Backing, FixedArena",
    };
    let mut lines = vec![
        format!("use uring_arena::{{{names}}};"),
        String::new(),
        "fn main() -> Result<(), Box<dyn std::error::Error>> {".into(),
        format!("    let arena = FixedArena::with_sizes({slots}, {slot_bytes})"),
        format!("        .alignment({alignment})"),
        format!("        .backing(Backing::{backing:?})"),
        "        .build()?;".into(),
    ];
    match (probe, mode) {
        (None, _) => lines.extend([
            "    // No driver: io_uring is not available. On tokio, `tokio::Pool` does without it."
                .into(),
            "    drop(arena);".into(),
        ]),
        (Some(_), RegistrationMode::Unregistered) => {
            lines.push("    let mut driver = Driver::builder().build()?;".into());
            lines.push(
                "    // Registering gains nothing until the limit is raised: see the verdict."
                    .into(),
            );
        }
        (Some(_), mode) => {
            lines.push("    let mut driver = Driver::builder().build()?;".into());
            lines.push(format!("    driver.register(&arena)?; // {}", mode_name(mode)));
        }
    }
    if receives {
        lines.extend([
            "    // The depth of the ring follows the messages: streams need no other settings."
                .into(),
            "    // Small writes that nobody answers: `Driver::builder().coalesce(8, time)`, with 100"
                .into(),
            "    // µs, takes less processor time, and tells of everything so much later.".into(),
            "    let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;".into(),
            "    // From here on: `driver.receive(ring, socket)?`, then `driver.wait_event()?`."
                .into(),
            "    let _ = ring;".into(),
        ]);
    } else if probe.is_some() {
        let why = match *slots <= 1 << 16 {
            true => "this kernel has no multishot receive into a buffer ring",
            false => "an arena for one has at most 65,536 slots",
        };
        lines.push(format!("    // No buffer ring: {why}."));
        lines.push("    let _ = (&mut driver, &arena);".into());
    }
    lines.extend(["    Ok(())".into(), "}".into()]);
    lines.join("\n") + "\n"
}

/// Formats a size: exact in bytes if it is no multiple of 1 KiB.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30.. if bytes > 0 => format!("{} GiB", bytes >> 30),
        20.. if bytes > 0 => format!("{} MiB", bytes >> 20),
        10.. if bytes > 0 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}
