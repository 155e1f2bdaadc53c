//! Cost by threads and by fill, drawn.

use crate::report::{Part, Plot};

pub fn draw(part: &mut Part) {
    let mut threads = Plot::new(
        "cost-by-threads",
        "Claim, 64 B, freeze, drop: core time by threads",
        "threads",
        "ns per operation",
    );
    let mut fill = Plot::new(
        "cost-by-fill",
        "Claim, 64 B, freeze, drop: cost by slots held",
        "slots held of 1024",
        "ns per operation",
    );
    threads.lines_from(part, |key| key.strip_prefix("threads-")?.parse().ok());
    fill.lines_from(part, |key| key.strip_prefix("held-")?.parse().ok());
    part.plots.extend([threads, fill]);
}
