//! Clocks, counters and threads: how work becomes numbers.

mod aging;
mod allocator;
mod clock;
mod process;
mod random;
mod team;

pub use aging::{Age, aged};
pub use allocator::{Allocator, heap_allocations, wear_in_heap};
pub use clock::{Stopwatch, core_count, now, pin_to_core};
pub use process::{
    Syscalls, be_load, callgrind, callgrind_total, huge_mebibytes, is_installed, processor_time,
    registered_buffers,
};
pub use random::Random;
pub use team::{Padded, Team, hand_over, wait_for};
