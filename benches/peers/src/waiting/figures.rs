//! Which figures this part answers.

use crate::report::{Bound, Figure, OURS, Part};

use super::ours::OursPlain;
use super::systems::{Alligator, Guarded, Waitable};

const GROUP: &str = "Waiting";

pub fn add(part: &mut Part) {
    let mut figure =
        |case: &str, bound: Bound, ours: (&str, &str), other: (&str, &str), of: &str| {
            let measured = part.ratio(ours, other);
            part.figures.push(Figure::new(GROUP, case, bound, of, measured));
        };
    let uncontended = "`allocate_async`, uncontended";
    figure(uncontended, Bound::AtMost(1.15), ("wait", OURS), ("claim", OURS), "× `allocate`");
    // Seen from the other side: what waiting adds to those who do not wait.
    let plain = "claim + drop, arena built without waiting";
    figure(
        plain,
        Bound::AtMost(1.02),
        ("claim", OursPlain::NAME),
        ("claim", OURS),
        "× built for waiting",
    );
    for other in [Alligator::NAME, Guarded::NAME] {
        let of = format!("× {other}");
        figure("wake, 99th percentile", Bound::Shown, ("wake-p99", OURS), ("wake-p99", other), &of);
    }
}
