//! Cost per message and memory of idle connections, drawn.

use crate::report::{Part, Plot};

pub fn draw(part: &mut Part) {
    let mut cost = Plot::new(
        "message-by-connections",
        "Whole round, 512 B messages: CPU per message by connections",
        "connections",
        "µs per message",
    );
    let mut idle = Plot::new(
        "memory-by-idle-connections",
        "Memory held while all are idle",
        "connections",
        "MiB",
    );
    cost.lines_from(part, |key| key.strip_prefix("whole-")?.strip_suffix("x512")?.parse().ok());
    idle.lines_from(part, |key| key.strip_prefix("idle-")?.parse().ok());
    part.plots.extend([cost, idle]);
}
