//! Cost by threads and by fill, drawn.

use crate::report::{Part, Plot};

pub fn add(part: &mut Part) {
    let threads = Plot::new(
        "cost-by-threads",
        "Claim, 64 B, freeze, drop: core time by threads",
        "threads",
        "ns per operation",
    );
    let fill = Plot::new(
        "cost-by-fill",
        "Claim, 64 B, freeze, drop: cost by slots held",
        "slots held of 1024",
        "ns per operation",
    );
    let threads = with_lines(part, threads, "threads-");
    let fill = with_lines(part, fill, "held-");
    part.plots.extend([threads, fill]);
}

/// A line per contender through the comparisons whose key is the prefix and a number.
pub fn with_lines(part: &Part, mut plot: Plot, prefix: &str) -> Plot {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for comparison in &part.comparisons {
        let Some(x) = comparison.key.strip_prefix(prefix).and_then(|x| x.parse().ok()) else {
            continue;
        };
        for row in &comparison.rows {
            let Some(spread) = row.spread else { continue };
            match lines.iter_mut().find(|line| line.0 == row.name) {
                Some(line) => line.1.push((x, spread.median)),
                None => lines.push((row.name.clone(), vec![(x, spread.median)])),
            }
        }
    }
    for (name, points) in lines {
        plot.line(&name, points);
    }
    plot
}
