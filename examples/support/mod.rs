//! What the examples share: sizes on the command line, a progress bar, CPU time, an orderly end.
#![allow(dead_code, reason = "each example uses its part")]

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// An error for the person at the keyboard: what, which limit, what to do.
#[derive(Debug)]
pub struct Mistake(pub String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mistake {}

/// A [`Mistake`] as the error of a function.
pub fn mistake(text: impl Into<String>) -> Box<dyn Error> {
    Box::new(Mistake(text.into()))
}

/// Runs an example: errors go to standard error, and the exit code says so.
pub fn run(main: impl FnOnce() -> Result<(), Box<dyn Error>>) -> ExitCode {
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The value of `option` as a size: `4096`, `64K`, `2G`; suffixes are powers of 1024.
pub fn size(option: &str, value: OsString) -> Result<u64, Box<dyn Error>> {
    let text = value.to_string_lossy();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..]
        .to_ascii_uppercase()
        .trim_end_matches("IB")
        .trim_end_matches('B')
    {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    size.ok_or_else(|| {
        mistake(format!(
            "{option} {text}: not a size; give a number below 2^64, bare or with K, M, G or T behind it"
        ))
    })
}

/// As [`size`], but at least 1 and at most `limit`; `advice` says what to do about more.
pub fn size_within(
    option: &str,
    value: OsString,
    limit: u64,
    advice: &str,
) -> Result<u64, Box<dyn Error>> {
    match size(option, value)? {
        0 => Err(mistake(format!("{option} 0: must be at least 1"))),
        size if size > limit => {
            Err(mistake(format!("{option} {size}: must be at most {limit}; {advice}")))
        }
        size => Ok(size),
    }
}

/// Says so if `bytes` of memory, which will be touched, are more than the machine has to give.
pub fn check_memory(what: &str, bytes: u64) -> Result<(), Box<dyn Error>> {
    let Some(available) = available_memory_bytes() else { return Ok(()) };
    if bytes > available {
        return Err(mistake(format!(
            "{what} is {bytes} bytes, but only {available} bytes of memory are available: ask for less"
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

/// A bar on the terminal; nothing where there is none.
pub fn progress(total_bytes: u64) -> ProgressBar {
    let template = "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes).with_style(style)
}

/// CPU time of the calling thread so far, its system calls included.
#[cfg(target_os = "linux")]
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Raises this process's limit of open files to `needed`, or says what it would take.
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

/// Bytes and a duration as gigabytes (10⁹) a second.
pub fn gb_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9)
}

/// CPU seconds per gigabyte (10⁹).
pub fn cpu_per_gb(bytes: u64, cpu: Duration) -> f64 {
    cpu.as_secs_f64() / (bytes as f64 / 1e9).max(1e-9)
}
