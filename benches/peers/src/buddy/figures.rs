//! Which figures this part answers.

use crate::report::{Bound, Figure, OURS, Part};

use super::cases::{BESIDE_BYTES, Case};
use super::memory::{Alligator, Heap, Memory, Offsets};

const GROUP: &str = "Buddy mode";

pub fn add(part: &mut Part) {
    let peer = Alligator::NAME;
    let mut figure = |case: &str, ours: (&str, &str), other: (&str, &str), limit: f64, of: &str| {
        let measured = part.ratio(ours, other);
        part.figures.push(Figure::new(GROUP, case, Bound::AtMost(limit), of, measured));
    };
    let of_peer = "× arena-alligator 0.7";
    for (bytes, limit) in [(256, 0.01), (4096, 0.10), (16384, 0.15)] {
        let key = format!("alone-{bytes}");
        figure(&format!("{bytes} B alone"), (&key, OURS), (&key, peer), limit, of_peer);
    }
    let mix = "random 256 B – 64 KiB, 512 live";
    figure(mix, ("lengths", OURS), ("lengths", peer), 0.25, of_peer);
    figure(
        mix,
        ("lengths", OURS),
        ("lengths", Heap::NAME),
        0.20,
        "× `BytesMut::with_capacity` (glibc)",
    );
    let two = "4096 B, 2 threads";
    figure(two, ("threads-2", OURS), ("threads-2", peer), 0.05, of_peer);
    figure(two, ("threads-2", OURS), ("threads-1", OURS), 1.5, "× our own 1 thread");
    let region = "4096 B, 1 GiB arena beside 16 MiB";
    figure(region, ("region-1024", OURS), ("region-16", OURS), 1.2, "× our own 16 MiB");
    let region = "random 256 B – 16 KiB, 512 live, 1 GiB arena beside 16 MiB";
    figure(
        region,
        ("region-lengths-1024", OURS),
        ("region-lengths-16", OURS),
        1.2,
        "× our own 16 MiB",
    );
    for bytes in BESIDE_BYTES {
        let [few, most] = [10, 90].map(|percent| Case::Beside { bytes, percent }.key());
        let case = format!("{bytes} B, arena 90 % full beside 10 %");
        figure(&case, (&most, OURS), (&few, OURS), 1.2, "× our own at 10 %");
    }

    for (what, key) in [("largest free block", "largest-free-75"), ("free 64 KiB runs", "runs-75")]
    {
        for other in [peer, Offsets::NAME] {
            let measured = part.ratio((key, OURS), (key, other));
            let case = format!("{what} after churn at 75 %");
            part.figures.push(Figure::new(
                GROUP,
                &case,
                Bound::Shown,
                &format!("× {other}"),
                measured,
            ));
        }
    }
}
