//! How a fair number is taken: interleaved rounds, pinned threads, children where a peer needs its
//! own process.

mod allocator;
mod child;
mod cores;
mod effort;
mod progress;
mod registered;
mod rounds;
mod spread;
mod stopwatch;
mod team;
mod tool;
mod turns;

pub use allocator::{Allocator, heap_allocations};
pub use child::{Child, Sample, serve};
pub use cores::{core_count, pin_to_core};
pub use effort::Effort;
pub use progress::Progress;
pub use registered::registered_buffers;
pub use rounds::{Contender, Work, interleave};
pub use spread::{Spread, ratios};
pub use stopwatch::Stopwatch;
pub use team::{Spent, Team};
pub use tool::Tool;
pub use turns::{Answers, take_turns, take_turns_anew};
