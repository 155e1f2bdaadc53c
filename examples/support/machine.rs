//! Limits and clocks of this machine and this process.

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

use indicatif::BinaryBytes;

use super::mistake;

/// Returns an error if `bytes` are more memory than the machine has available.
pub fn check_memory(what: &str, bytes: u64) -> Result<(), Box<dyn Error>> {
    let Some(available) = available_memory_bytes() else { return Ok(()) };
    if bytes > available {
        return Err(mistake(format!(
            "{what} is {}, but only {} of memory are available: ask for less",
            BinaryBytes(bytes),
            BinaryBytes(available)
        )));
    }
    Ok(())
}

/// Returns an error if so many slots of so many bytes do not fit into memory, `arenas` times.
pub fn check_slots(
    slots: NonZeroUsize,
    slot_bytes: NonZeroUsize,
    arenas: u64,
) -> Result<(), Box<dyn Error>> {
    let bytes = (slots.get() as u64).saturating_mul(slot_bytes.get() as u64);
    let what = match arenas {
        1 => "--slots times --slot-bytes".into(),
        _ => format!("{arenas} times --slots times --slot-bytes"),
    };
    check_memory(&what, bytes.saturating_mul(arenas))
}

fn available_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib << 10)
}

/// Returns the CPU time of the calling thread so far, system calls included.
#[cfg(target_os = "linux")]
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Raises the limit of open files of this process to `needed`.
///
/// Returns an error with the remedy if the hard limit is lower.
#[cfg(target_os = "linux")]
pub fn need_descriptors(needed: u64) -> Result<(), Box<dyn Error>> {
    let limit = raise_descriptors(needed);
    if limit >= needed {
        return Ok(());
    }
    Err(mistake(format!(
        "{needed} file descriptors are needed and the hard limit is {limit}: use fewer connections, or raise it (`ulimit -Hn`)"
    )))
}

/// Raises the limit of open files of this process to `wanted`, or as near as the hard limit allows.
///
/// Returns the limit that holds then. A higher one is left alone.
#[cfg(target_os = "linux")]
pub fn raise_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let raised = wanted.min(hard);
    let change = Rlimit { current: Some(raised), maximum: limit.maximum };
    if soft < raised && setrlimit(Resource::Nofile, change).is_ok() { raised } else { soft }
}

/// The remedy if no client can be accepted.
pub const MORE_ROOM: &str = "more descriptors (`ulimit -n`) or fewer clients would help";
