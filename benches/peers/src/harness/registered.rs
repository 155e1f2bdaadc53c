//! Proof that memory is registered, from the kernel: what a program asked for is an intention.

use std::fs;

/// Buffers registered with all rings of this process.
pub fn registered_buffers() -> f64 {
    let Ok(entries) = fs::read_dir("/proc/self/fdinfo") else {
        return 0.0;
    };
    let count = |text: String| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix("UserBufs:"))?;
        line.trim().parse().ok()
    };
    let all = entries.flatten().filter_map(|entry| count(fs::read_to_string(entry.path()).ok()?));
    all.sum::<u64>() as f64
}
