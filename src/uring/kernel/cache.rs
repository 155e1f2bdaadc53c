//! The processor's caches, as sysfs describes them.

use std::fs;
use std::sync::OnceLock;

/// The bytes that are taken for half of the second-level cache where sysfs does not tell.
const HALF_L2_DEFAULT: usize = 256 << 10;

/// Returns the bytes of half the second-level cache of a processor. Read once in a process.
pub(in crate::uring) fn half_l2_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| l2_cache().map_or(HALF_L2_DEFAULT, |bytes| bytes / 2))
}

/// Reads the size of the second-level cache of the first processor.
fn l2_cache() -> Option<usize> {
    (0..8).find_map(|index| {
        let read = |name| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}"))
        };
        let is_l2 = read("level").ok()?.trim() == "2";
        is_l2.then(|| parse(&read("size").ok()?))?
    })
}

/// Reads a size as sysfs writes it: `1024K`.
fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_sysfs_writes_them() {
        assert_eq!(parse("1024K\n"), Some(1 << 20));
        assert_eq!((parse("2M"), parse("512")), (Some(2 << 20), Some(512)));
        for wrong in ["", "K", "x", "0K", "99999999999999999999M"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(half_l2_cache() > 0);
    }
}
