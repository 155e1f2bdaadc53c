//! The machine and the versions of a run, without the name of the host or a path.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::measure::core_count;

/// The lock file that this program was built with has the versions.
const LOCK: &str = include_str!("../../../../Cargo.lock");

/// The crates whose versions matter to the numbers.
const NAMED: &str = " a10 arena-alligator bytes compio crossbeam-queue glommio io-uring mimalloc \
                     monoio offset-allocator tokio tokio-uring uring-arena ";

/// Returns the facts by name.
pub fn machine() -> Vec<(String, String)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let facts = [
        ("date", date()),
        ("processor", processor()),
        ("cores", core_count().to_string()),
        ("kernel", format!("Linux {}", release.trim())),
        ("versions", versions()),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).to_vec()
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

/// Returns today in UTC.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // SAFETY: integers, and a pointer that may be null.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type.
    unsafe { libc::gmtime_r(&(seconds as libc::time_t), &mut time) };
    format!("{:04}-{:02}-{:02}", time.tm_year + 1900, time.tm_mon + 1, time.tm_mday)
}

fn versions() -> String {
    let packages = LOCK.split("[[package]]\n").filter_map(|package| {
        let mut fields = package.lines().filter_map(|line| line.split_once(" = "));
        let (name, version) = (fields.next()?.1.trim_matches('"'), fields.next()?.1);
        NAMED
            .contains(&format!(" {name} "))
            .then(|| format!("{name} {}", version.trim_matches('"')))
    });
    packages.collect::<Vec<_>>().join(", ")
}
