//! Which figures this part answers.

use crate::report::{Bound, Figure, OURS, Part};

use super::systems::System;
use super::{fio, registering};

const GROUP: &str = "Kernel side";

pub fn add(part: &mut Part) {
    let case = "random 4 KiB `O_DIRECT` reads, depth 32";
    let rate = part.ratio(("rate-random-32", OURS), ("rate-random-32", fio::NAME));
    let cpu = part.ratio(("cpu-random-32", OURS), ("cpu-random-32", fio::NAME));
    part.figures.extend([
        Figure::new(GROUP, &format!("{case}: IOPS"), Bound::AtLeast(0.97), "× fio", rate),
        Figure::new(GROUP, &format!("{case}: CPU per read"), Bound::AtMost(1.05), "× fio", cpu),
    ]);
    let (ours, own) = (System::OursTokioUring.name(), System::TokioUring.name());
    let cpu = part.ratio(("cpu-random-32", ours), ("cpu-random-32", own));
    let read = "tokio-uring: random 4 KiB reads through our memory, depth 32, CPU";
    let of = "× its own buffers, used in place";
    part.figures.push(Figure::new("Runtimes", read, Bound::AtMost(1.05), of, cpu));

    for (key, pages, _) in registering::PAGES {
        let by = |above: &str, below: &str| part.ratio((key, above), (key, below));
        let region = by(registering::BY_REGION, registering::BY_SLOT);
        let slots_cloned = by(registering::SLOTS_CLONED, registering::BY_SLOT);
        let regions_cloned = by(registering::REGIONS_CLONED, registering::BY_REGION);
        let figure = |case: &str, limit: f64, of: &str, measured| {
            let case = format!("registering 1 GiB in 64 KiB slots, {pages}: {case}");
            Figure::new(GROUP, &case, Bound::AtMost(limit), of, measured)
        };
        part.figures.extend([
            figure("by region", 0.25, "× by slot", region),
            figure("a second ring, by region", 0.05, "× the first", regions_cloned),
            figure("a second ring, by slot", 0.05, "× the first", slots_cloned),
        ]);
    }
}
