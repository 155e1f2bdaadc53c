//! Every pair of the micro cases under criterion: statistics and a history of its own.
//!
//! Verdicts come from the interleaved ratios of `cargo run --release -p uring-arena-peers`. This is
//! for watching a change: `cargo bench -p uring-arena-peers -- FILTER`.

use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use uring_arena_peers::run::Effort;
use uring_arena_peers::{parts, pin_to_core};

fn main() {
    pin_to_core(0);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for part in parts(Effort { quick: true }) {
        let comparisons = part.groups.iter().flatten();
        for comparison in comparisons.filter(|comparison| comparison.method.micro) {
            let mut group = criterion.benchmark_group(format!("{}/{}", part.name, comparison.key));
            // The allocator of this process is the case's.
            let own = comparison.pairs.iter();
            for pair in own.filter(|pair| pair.allocator == comparison.method.allocator) {
                group.bench_function(pair.contender, |bencher| {
                    let mut work = pair.start(Path::new("")).expect("a micro case opens nothing");
                    bencher.iter_custom(|times| {
                        let sample = work(times).expect("a micro case opens nothing");
                        let each = sample.get("ns").expect("a micro case counts nanoseconds");
                        Duration::from_secs_f64(each * times as f64 / 1e9)
                    });
                });
            }
            group.finish();
        }
    }
    criterion.final_summary();
}
