//! Facts about this machine from `/proc` and `/sys`.

use std::fs;

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

pub fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into())
}

/// Returns the mode of transparent huge pages: `always`, `madvise` or `never`.
fn huge_page_mode() -> Option<String> {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let (_, from) = modes.split_once('[')?;
    Some(from.split_once(']')?.0.to_owned())
}

pub fn transparent_huge_pages() -> String {
    match huge_page_mode() {
        Some(mode) if mode == "madvise" => {
            "yes, where asked for by Backing::TransparentHuge".into()
        }
        Some(mode) if mode == "always" => "yes, everywhere".into(),
        Some(_) => {
            "NO: switched off; echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into()
        }
        None => "NO: this kernel is built without them".into(),
    }
}

pub fn allows_huge_pages() -> bool {
    huge_page_mode().is_some_and(|mode| mode != "never")
}

/// Reports the pool of reserved huge pages of `kib` KiB.
pub fn huge_pages(kib: u64) -> String {
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let number =
        |file: &str| read(&format!("{folder}/{file}")).and_then(|text| text.parse::<u64>().ok());
    match (number("nr_hugepages"), number("free_hugepages")) {
        (Some(0), _) => format!("none reserved; echo N > {folder}/nr_hugepages"),
        (Some(all), Some(free)) => format!("{free} free of {all} reserved"),
        _ => "NO: this machine has none".into(),
    }
}

/// Returns the bytes of memory that are available.
pub fn available_memory() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib << 10)
}
