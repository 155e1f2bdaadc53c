//! 6 KERNEL: pieces for a ring that the user owns. Uses the arenas and everything above them.
//!
//! Registration and its ladder, fixed and zero-copy operations, and what the kernel can do. The pieces build entries and
//! interpret completions; whoever owns the ring pushes and reaps.

mod descriptor;
mod direct;
mod feature;
mod fixed;
mod in_flight;
mod ladder;
mod memlock;
mod memory;
mod operation;
mod probe;
mod registered;
mod send;
mod syscall;
mod table;
mod unavailable;

pub use descriptor::Descriptor;
pub use direct::{DirectAlignment, DirectFile};
pub use feature::Feature;
pub use in_flight::{Completion, InFlight};
pub use ladder::{RegisterOptions, Rung};
pub use memlock::Memlock;
pub use memory::{Memory, Payload};
pub use operation::{Operation, Progress};
pub use probe::{Probe, ring_info};
pub use registered::{RegisteredArena, Registrable};
pub use send::SendOptions;
