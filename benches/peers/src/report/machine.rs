//! Where and with what it was measured, without naming the host or a path.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::core_count;

/// Versions come from the lock file that this program was built with.
const LOCK: &str = include_str!("../../../../Cargo.lock");

/// The crates whose versions matter to the numbers.
const NAMED: [&str; 13] = [
    "a10",
    "arena-alligator",
    "bytes",
    "compio",
    "crossbeam-queue",
    "glommio",
    "io-uring",
    "mimalloc",
    "monoio",
    "offset-allocator",
    "tokio",
    "tokio-uring",
    "uring-arena",
];

#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub date: String,
    pub versions: String,
}

impl Machine {
    pub fn here() -> Self {
        Self {
            processor: processor(),
            cores: core_count(),
            kernel: kernel(),
            date: date(),
            versions: versions(),
        }
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    match (field("cpu family"), field("model\t")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Today in UTC.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut time = zeroed_time();
    // SAFETY: both pointers are to live values of the right type.
    unsafe { libc::gmtime_r(&(seconds as libc::time_t), &mut time) };
    format!("{:04}-{:02}-{:02}", time.tm_year + 1900, time.tm_mon + 1, time.tm_mday)
}

fn zeroed_time() -> libc::tm {
    // SAFETY: integers and a pointer that may be null.
    unsafe { std::mem::zeroed() }
}

fn versions() -> String {
    let mut found = Vec::new();
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'))
        else {
            continue;
        };
        let version = lines.next().unwrap_or_default();
        let version = version.trim_start_matches("version = ").trim_matches('"');
        if NAMED.contains(&name) {
            found.push(format!("{name} {version}"));
        }
    }
    found.join(", ")
}
