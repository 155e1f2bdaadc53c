//! Which figures this part answers.

use crate::report::{Bound, Figure, OURS, Part};

use super::fio;

const GROUP: &str = "Kernel side";

pub fn add(part: &mut Part) {
    let case = "random 4 KiB `O_DIRECT` reads, depth 32";
    let rate = part.ratio(("rate-random-32", OURS), ("rate-random-32", fio::NAME));
    let cpu = part.ratio(("cpu-random-32", OURS), ("cpu-random-32", fio::NAME));
    part.figures.extend([
        Figure::new(GROUP, &format!("{case}: IOPS"), Bound::AtLeast(0.97), "× fio", rate),
        Figure::new(GROUP, &format!("{case}: CPU per read"), Bound::AtMost(1.05), "× fio", cpu),
    ]);
}
