//! Limits and clocks of this machine and this process.

use std::error::Error;
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
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    let hard = limit.maximum;
    if hard.is_none_or(|hard| hard >= needed)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: hard }).is_ok()
    {
        return Ok(());
    }
    let hard = hard.map_or("none".into(), |hard| hard.to_string());
    Err(mistake(format!(
        "{needed} file descriptors are needed and the hard limit is {hard}: use fewer connections, or raise it (`ulimit -Hn`)"
    )))
}
